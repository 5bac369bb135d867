#include "async_copy.h"

#include <cstring>

#include "execution.h"

namespace pycv::simt {
namespace {

void perform(const AsyncCopy& copy) {
    const auto valid = static_cast<std::size_t>(copy.valid), bytes = static_cast<std::size_t>(copy.bytes);
    races::reads(copy.source, valid, copy.place);
    races::writes(copy.target, bytes, copy.place);
    std::memcpy(copy.target, copy.source, valid);
    std::memset(copy.target + valid, 0, bytes - valid);
}

}  // namespace

void async_copy(void* shared, const void* global, int bytes, int valid, Site site) {
    const auto size = static_cast<std::size_t>(bytes);
    check_aligned(shared, size, "target of an asynchronous copy", site);
    check_aligned(global, size, "source of an asynchronous copy", site);
    if (valid < 0 || valid > bytes) fail("an asynchronous copy of " + std::to_string(valid) + " valid bytes", site);
    if (!execution.shared.contains(shared, size)) fail("an asynchronous copy leads outside shared memory", site);
    if (!addresses::may_access(global, static_cast<std::size_t>(valid)))
        fail("an asynchronous copy reads out of bounds", site);
    const AsyncCopy copy{static_cast<std::byte*>(shared), static_cast<const std::byte*>(global), bytes, valid,
                         __builtin_return_address(0)};
    if (!execution.configuration.lazy) return perform(copy);
    const races::Unseen unseen;
    running().copies.issued.push_back(copy);
}

void commit_async_copies() {
    const races::Unseen unseen;
    AsyncCopies& copies = running().copies;
    copies.group_ends.push_back(copies.issued.size());
}

void wait_async_copies(int allowed) {
    AsyncCopies& copies = running().copies;
    const auto groups = static_cast<std::ptrdiff_t>(copies.group_ends.size()) - allowed;
    if (groups <= 0) return;
    const std::size_t end = copies.group_ends[static_cast<std::size_t>(groups - 1)];
    while (copies.performed < end) perform(copies.issued[copies.performed++]);
    if (allowed == 0 && copies.performed == copies.issued.size()) copies.clear();
}

}  // namespace pycv::simt
