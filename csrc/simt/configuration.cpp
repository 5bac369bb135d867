#include "configuration.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "../cuda/device/error.h"
#include "launch.h"

namespace pycv::simt {
namespace {

// The message, until this thread's next one.
const char* refused(std::string_view rule, std::string_view given) {
    static thread_local std::string message;
    message = std::string(rule) + ", not '" + std::string(given) + "'";
    return message.c_str();
}

const char* set_order(Configuration& target, std::string_view order) {
    constexpr std::string_view seeded = "random:";
    const std::string_view given = order;
    if (order == "forward") {
        target.order = Order::forward;
    } else if (order == "reverse") {
        target.order = Order::reverse;
    } else if (order == "random" || order.starts_with(seeded)) {
        target.order = Order::random;
        target.seed = 0;
        if (order.starts_with(seeded))
            order.remove_prefix(seeded.size());
        else
            order = "0";
        for (const char digit : order) {
            if (digit < '0' || digit > '9') return refused("PYCV_SIMT_ORDER: the seed of random is a number", given);
            target.seed = target.seed * 10 + static_cast<std::uint64_t>(digit - '0');
        }
    } else {
        return refused("PYCV_SIMT_ORDER is forward, reverse or random[:SEED]", given);
    }
    return nullptr;
}

const char* set_async(Configuration& target, std::string_view async) {
    if (async != "eager" && async != "lazy") return refused("PYCV_SIMT_ASYNC is eager or lazy", async);
    target.lazy = async == "lazy";
    return nullptr;
}

const char* set(Configuration& target, const char* order, const char* async) {
    const char* wrong = order ? set_order(target, order) : nullptr;
    return wrong == nullptr && async ? set_async(target, async) : wrong;
}

Configuration from_environment() {
    Configuration result;
    if (const char* wrong = set(result, std::getenv("PYCV_SIMT_ORDER"), std::getenv("PYCV_SIMT_ASYNC")))
        throw cuda::CudaError(wrong);
    return result;
}

Configuration& in_force() {
    static Configuration result = from_environment();
    return result;
}

}  // namespace

const Configuration& configuration() { return in_force(); }

}  // namespace pycv::simt

const char* pycv_simt_configure(const char* order, const char* async) {
    pycv::simt::Configuration next = pycv::simt::in_force();
    const char* wrong = pycv::simt::set(next, order, async);
    if (wrong == nullptr) pycv::simt::in_force() = next;
    return wrong;
}
