#include "warp_group.h"

#include <bit>
#include <cstring>

#include "execution.h"
#include "float16.h"

namespace pycv::simt {
namespace {

constexpr int group_rows = 64, rows = 16, most_columns = 256, most_depth = 16;
using Columns [[gnu::vector_size(32), gnu::may_alias]] = float;
constexpr unsigned all_lanes = 0xffffffffu;

// ------------------------------------------------------------------------------------------------------ operands

// What the bits of a descriptor say.
struct Descriptor {
    std::size_t start, leading, stride, span;

    explicit Descriptor(std::uint64_t bits)
        : start((bits & 0x3fff) << 4),
          leading((bits >> 16 & 0x3fff) << 4),
          stride((bits >> 32 & 0x3fff) << 4),
          span(bits >> 62 == 0 ? 0 : std::size_t{256} >> (bits >> 62)) {}

    // Of the 16 bytes that begin at this element; `line` or `k` counts whole vectors.
    std::size_t offset(bool by_lines, std::size_t line, std::size_t k, std::size_t bytes) const {
        std::size_t at = start;
        if (by_lines)
            at += line * bytes / span * leading + k / 8 * stride + k % 8 * span + line * bytes % span;
        else
            at += line / 8 * stride + line % 8 * span + k * bytes;
        return at ^ (at >> 7 & (span / 16 - 1)) << 4;
    }
};

template <MatrixType type>
void decode(const std::byte* vector, float* to, std::size_t step) {
    for (std::size_t i = 0; i < (type == MatrixType::tf32 ? 4 : 8); i++) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, vector + i * (type == MatrixType::tf32 ? 4 : 2), type == MatrixType::tf32 ? 4 : 2);
        if constexpr (type == MatrixType::tf32)
            to[i * step] = std::bit_cast<float>(bits & 0xffffe000u);
        else if constexpr (type == MatrixType::bf16)
            to[i * step] = std::bit_cast<float>(bits << 16);
        else
            to[i * step] = __half2float({static_cast<std::uint16_t>(bits)});
    }
}

// Lines [first, first + count) of an operand, over its depth, to to[line * line_step + k * k_step].
template <MatrixType type>
void read_operand(const IssuedProduct& issued, std::uint64_t descriptor, bool by_lines, std::size_t first,
                  std::size_t count, float* to, std::size_t line_step, std::size_t k_step) {
    constexpr std::size_t bytes = type == MatrixType::tf32 ? 4 : 2, vector = 16 / bytes, depth = 32 / bytes;
    const Descriptor of(descriptor);
    const std::size_t lines_at_once = by_lines ? vector : 1, k_at_once = by_lines ? 1 : vector;
    for (std::size_t line = 0; line < count; line += lines_at_once)
        for (std::size_t k = 0; k < depth; k += k_at_once) {
            const std::size_t offset = of.offset(by_lines, first + line, k, bytes);
            if (offset + 16 > execution.shared.dynamic_bytes())
                fail_as(*issued.issuer, "a product reads outside dynamic shared memory", issued.site);
            std::byte read[16];
            races::reads(execution.shared.dynamic() + offset, 16, issued.place);
            read_as_copies_do(execution.shared.dynamic() + offset, read, *issued.issuer, issued.site);
            decode<type>(read, to + line * line_step + k * k_step, by_lines ? line_step : k_step);
        }
}

template <MatrixType type>
void perform(const IssuedProduct& issued) {
    const GroupProduct& p = issued.product;
    constexpr int depth = type == MatrixType::tf32 ? 8 : 16;
    const auto columns = static_cast<std::size_t>(p.columns);
    const auto first_row = static_cast<std::size_t>(issued.issuer->warp() % 4 * rows);
    alignas(64) static float a[rows * most_depth], b[most_depth * most_columns], sums[rows * most_columns];
    read_operand<type>(issued, p.a, p.a_by_lines, first_row, rows, a, depth, 1);
    read_operand<type>(issued, p.b, p.b_by_lines, 0, columns, b, 1, columns);
    const auto for_each_sum = [&](auto visit) {
        for (int lane = 0; lane < warp_size; lane++)
            for (int i = 0; i < p.columns / 2; i++) {
                const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
                visit(issued.sums[static_cast<std::size_t>(lane)][i], sums[row * p.columns + column]);
            }
    };
    for_each_sum([](const float& own, float& sum) { sum = own; });
    for (int row = 0; row < rows; row++)
        for (int k = 0; k < depth; k++) {
            const float factor = a[row * depth + k];
            auto* const to = reinterpret_cast<Columns*>(sums + row * p.columns);
            const auto* const from = reinterpret_cast<const Columns*>(b + k * p.columns);
            for (int column = 0; column < p.columns / 8; column++) to[column] += factor * from[column];
        }
    for_each_sum([](float& own, const float& sum) { own = sum; });
}

void perform_product(const IssuedProduct& issued) {
    const auto number = static_cast<std::size_t>(issued.issuer->warp());
    Warp& warp = execution.warps[number];
    execution.fibers.by_agent(races::first_product_agent + number, [&] {
        races::acquire(&warp.product_clock);
        switch (issued.product.type) {
            case MatrixType::f16: perform<MatrixType::f16>(issued); break;
            case MatrixType::bf16: perform<MatrixType::bf16>(issued); break;
            case MatrixType::tf32: perform<MatrixType::tf32>(issued); break;
        }
        races::release(&warp.products);
        races::release(&execution.end_clock);
    });
}

// --------------------------------------------------------------------------------------------------- collectives

GroupProducts& products_of_warp() { return execution.warps[static_cast<std::size_t>(running().warp())].products; }

void need_all_lanes(const Lanes& lanes, Site site) {
    for (void* result : lanes.results)
        if (result == nullptr) fail("a product of a warp group needs all 32 lanes of a warp", site);
}

struct LaneProduct {
    GroupProduct product;
    float* sums;
    races::Place place;
};

bool same(const GroupProduct& one, const GroupProduct& other) {
    return one.a == other.a && one.b == other.b && one.columns == other.columns && one.type == other.type;
}

void issue_lanes(const Lanes& lanes, Site site) {
    need_all_lanes(lanes, site);
    GroupProducts& products = products_of_warp();
    if (!products.fenced) fail("a product without a fence before it", site);
    const auto& first = *static_cast<const LaneProduct*>(lanes.operands[0]);
    IssuedProduct issued{first.product, {}, &running(), site, first.place};
    for (std::size_t lane = 0; lane < warp_size; lane++) {
        const auto& own = *static_cast<const LaneProduct*>(lanes.operands[lane]);
        if (!same(own.product, issued.product)) fail("the lanes of a warp name different operands of a product", site);
        issued.sums[lane] = own.sums;
    }
    if (!execution.configuration.lazy) return perform_product(issued);
    const races::Unseen unseen;
    products.issued.push_back(issued);
}

void fence_lanes(const Lanes& lanes, Site site) {
    need_all_lanes(lanes, site);
    products_of_warp().fenced = true;
}

void commit_lanes(const Lanes& lanes, Site site) {
    need_all_lanes(lanes, site);
    const races::Unseen unseen;
    GroupProducts& products = products_of_warp();
    products.fenced = false;
    products.group_ends.push_back(products.issued.size());
}

void store_lanes(const Lanes& lanes, Site site) {
    need_all_lanes(lanes, site);
    std::uint16_t matrices[4][8][8];
    for (int lane = 0; lane < warp_size; lane++) {
        const auto& own = *static_cast<const StoredFragments*>(lanes.operands[lane]);
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++) {
                auto& element = matrices[i][lane / 4][lane % 4 * 2 + half];
                element = static_cast<std::uint16_t>(own.registers[i] >> 16 * half);
            }
    }
    for (int lane = 0; lane < warp_size; lane++)
        std::memcpy(static_cast<const StoredFragments*>(lanes.operands[lane])->row, matrices[lane / 8][lane % 8], 16);
}

void perform_groups(GroupProducts& products, int allowed) {
    const auto groups = static_cast<std::ptrdiff_t>(products.group_ends.size()) - allowed;
    if (groups <= 0) return;
    const std::size_t end = products.group_ends[static_cast<std::size_t>(groups - 1)];
    while (products.performed < end) perform_product(products.issued[products.performed++]);
    if (allowed == 0 && products.performed == products.issued.size()) products.clear();
}

}  // namespace

bool complete_products() {
    for (std::size_t first = 0; first + warp_size <= execution.threads.size(); first += warp_size) {
        Thread* const lanes = &execution.threads[first];
        bool all_wait = true;
        for (int lane = 0; lane < warp_size; lane++) all_wait &= lanes[lane].state == State::at_products;
        if (!all_wait) continue;
        perform_groups(execution.warps[first / warp_size].products, static_cast<int>(lanes->wait.mask));
        make_ready(static_cast<unsigned>(first), static_cast<unsigned>(first + warp_size),
                   [](const Thread&) { return true; });
        return true;
    }
    return false;
}

std::uint64_t describe_matrix(const void* shared, unsigned leading_bytes, unsigned stride_bytes, unsigned span,
                              Site site) {
    check_aligned(shared, 16, "operand of a product", site);
    if (!execution.shared.dynamic_contains(shared, 16)) fail("an operand outside dynamic shared memory", site);
    const auto start = static_cast<std::uint64_t>(static_cast<const std::byte*>(shared) - execution.shared.dynamic());
    const std::uint64_t kind = span == 128 ? 1 : span == 64 ? 2 : 3;
    return start >> 4 | std::uint64_t{leading_bytes >> 4} << 16 | std::uint64_t{stride_bytes >> 4} << 32 | kind << 62;
}

void fence_products(Site site) {
    char token;
    collective(all_lanes, "fence of products", fence_lanes, nullptr, &token, site);
}

void multiply_async(const GroupProduct& product, float* sums, Site site) {
    LaneProduct lane{product, sums, __builtin_return_address(0)};
    races::release(&execution.warps[static_cast<std::size_t>(running().warp())].product_clock);
    collective(all_lanes, "product of a warp group", issue_lanes, &lane, &lane, site);
}

void commit_products(Site site) {
    char token;
    collective(all_lanes, "commit of products", commit_lanes, nullptr, &token, site);
}

void wait_for_products(int allowed, Site site) {
    if (execution.configuration.lazy) {
        Thread& self = running();
        self.wait = {.name = "wait_for_products", .site = site, .mask = static_cast<unsigned>(allowed)};
        self.state = State::at_products;
        suspend();
    }
    races::acquire(&products_of_warp());
}

void store_fragments(void* row, const unsigned (&registers)[4], Site site) {
    constexpr std::size_t bytes = 16;
    check_aligned(row, bytes, "stmatrix of a row", site);
    if (!execution.shared.contains(row, bytes)) fail("stmatrix writes outside shared memory", site);
    races::writes(row, bytes, __builtin_return_address(0));
    StoredFragments lane{row, {registers[0], registers[1], registers[2], registers[3]}};
    collective(all_lanes, "stmatrix", store_lanes, &lane, &lane, site);
}

}  // namespace pycv::simt
