#include "tensor_copy.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "../cuda/device/error.h"
#include "barriers.h"
#include "execution.h"

namespace pycv::simt {
namespace {

constexpr std::size_t vector_bytes = 16;

// ---------------------------------------------------------------------------------------------------- tensor maps

// What the driver would refuse, in words; empty if nothing.
std::string refused(const TensorMap& map) {
    const int bytes = cuda::bytes_of(map.element), span = static_cast<int>(map.swizzle);
    const auto within = [](int64_t value, int64_t least, int64_t most) { return value >= least && value <= most; };
    if (!within(map.rank, map.pixels > 0 ? 4 : 1, map.pixels > 0 ? 4 : 5))
        return "rank " + std::to_string(map.rank) + ": 1 to 5, and 4 of im2col";
    if (map.base == nullptr || reinterpret_cast<std::uintptr_t>(map.base) % vector_bytes != 0)
        return "an address that is not a multiple of 16 bytes";
    for (int axis = 0; axis < map.rank; axis++) {
        const std::string name = "axis " + std::to_string(axis);
        if (!within(map.sizes[axis], 1, int64_t{1} << 32)) return name + ": size " + std::to_string(map.sizes[axis]);
        if (axis > 0 && (map.strides[axis] % 16 != 0 || !within(map.strides[axis], 0, (int64_t{1} << 40) - 1)))
            return name + ": a stride of " + std::to_string(map.strides[axis]) + " bytes, not a multiple of 16";
        if ((axis == 0 || map.pixels == 0) && !within(map.box[axis], 1, 256))
            return name + ": a box of " + std::to_string(map.box[axis]) + ": 1 to 256";
    }
    const int row = map.box[0] * bytes;
    if (row % 16 != 0) return "rows of " + std::to_string(row) + " bytes in the box: multiples of 16";
    if (span != 0 && row > span) return "rows of " + std::to_string(row) + " bytes, longer than the swizzle";
    if (map.pixels == 0) return "";
    if (!within(map.pixels, 1, 1024)) return std::to_string(map.pixels) + " pixels: 1 to 1024";
    for (int axis = 0; axis < 2; axis++) {
        if (!within(map.lower[axis], -128, 127) || !within(map.upper[axis], -128, 127))
            return "a corner of im2col beyond -128 and 127";
        if (!within(map.step[axis], 1, 8)) return "a step of im2col beyond 1 and 8";
    }
    return "";
}

// ---------------------------------------------------------------------------------------- boxes in shared memory

// Where the vector of 16 bytes at this offset from `shared` lies.
std::byte* placed(const TensorMap& map, std::byte* shared, std::size_t offset) {
    auto address = reinterpret_cast<std::uintptr_t>(shared) + offset;
    const auto bits = static_cast<std::uintptr_t>(map.swizzle) / 16;
    if (bits > 0) address ^= (address >> 7 & (bits - 1)) << 4;
    return reinterpret_cast<std::byte*>(address);
}

std::size_t row_bytes(const TensorMap& map) {
    return static_cast<std::size_t>(map.box[0]) * static_cast<std::size_t>(cuda::bytes_of(map.element));
}

std::size_t row_count(const TensorMap& map) {
    if (map.pixels > 0) return static_cast<std::size_t>(map.pixels);
    std::size_t rows = 1;
    for (int axis = 1; axis < map.rank; axis++) rows *= static_cast<std::size_t>(map.box[axis]);
    return rows;
}

std::size_t box_bytes(const TensorMap& map) { return row_bytes(map) * row_count(map); }

// The coordinates at which row `row` of the copy begins; the innermost one is that of all rows.
void coordinates_of_row(const BoxCopy& copy, std::size_t row, int64_t (&at)[5]) {
    const TensorMap& map = copy.map;
    std::copy(copy.at, copy.at + 5, at);
    if (map.pixels > 0) {
        for (std::size_t i = 0; i < row; i++)
            for (int axis = 1; axis <= 2; axis++) {
                at[axis] += map.step[axis - 1];
                if (at[axis] < map.sizes[axis] + map.upper[axis - 1]) break;
                at[axis] = map.lower[axis - 1];
                if (axis == 2) at[3]++;
            }
        for (int axis = 1; axis <= 2; axis++) at[axis] += copy.shift[axis - 1];
        return;
    }
    for (int axis = 1; axis < map.rank; axis++) {
        const auto extent = static_cast<std::size_t>(map.box[axis]);
        at[axis] += static_cast<int64_t>(row % extent);
        row /= extent;
    }
}

// The elements [first, last) of a row that exist, as offsets within it, and where they begin in global memory.
struct RowPiece {
    std::size_t begin = 0, bytes = 0;
    std::byte* global = nullptr;
};
RowPiece existing_piece(const BoxCopy& copy, std::size_t row) {
    const races::Unseen unseen;
    const TensorMap& map = copy.map;
    int64_t at[5];
    coordinates_of_row(copy, row, at);
    auto* global = const_cast<std::byte*>(static_cast<const std::byte*>(map.base));
    for (int axis = 1; axis < map.rank; axis++) {
        if (at[axis] < 0 || at[axis] >= map.sizes[axis]) return {};
        global += at[axis] * map.strides[axis];
    }
    const int64_t first = std::max<int64_t>(at[0], 0), last = std::min(at[0] + map.box[0], map.sizes[0]);
    if (first >= last) return {};
    const int64_t bytes = cuda::bytes_of(map.element);
    return {static_cast<std::size_t>((first - at[0]) * bytes), static_cast<std::size_t>((last - first) * bytes),
            global + first * bytes};
}

template <class See>
void see_global(const BoxCopy& copy, See see) {
    if (!races::checked) return;
    for (std::size_t row = 0; row < row_count(copy.map); row++)
        if (const RowPiece piece = existing_piece(copy, row); piece.bytes > 0)
            see(piece.global, piece.bytes, copy.place);
}

// To the nearest, of two to the even one (PTX ISA, "Tensor dimension, size and format").
void round_to_tf32(std::byte* bytes, std::size_t count) {
    for (std::size_t i = 0; i < count; i += 4) {
        std::uint32_t bits;
        std::memcpy(&bits, bytes + i, 4);
        if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0xfffu + (bits >> 13 & 1u)) & 0xffffe000u;
        std::memcpy(bytes + i, &bits, 4);
    }
}

void perform_load(const BoxCopy& copy) {
    const TensorMap& map = copy.map;
    const std::size_t bytes = row_bytes(map);
    std::byte row[256 * 4];
    execution.fibers.by_agent(races::load_agent, [&] {
        races::acquire(copy.clock);
        see_global(copy, races::reads);
        races::writes(copy.shared, box_bytes(map), copy.place);
        races::release(clock_of_barrier(copy.barrier));
        races::release(&execution.end_clock);
    });
    const races::Unseen unseen;
    for (std::size_t r = 0; r < row_count(map); r++) {
        std::memset(row, 0, bytes);
        if (const RowPiece piece = existing_piece(copy, r); piece.bytes > 0) {
            if (!addresses::may_access(piece.global, piece.bytes))
                fail_as(*copy.issuer, "a copy of a box reads out of bounds", copy.site);
            std::memcpy(row + piece.begin, piece.global, piece.bytes);
        }
        if (map.element == cuda::TensorElement::tf32) round_to_tf32(row, bytes);
        for (std::size_t i = 0; i < bytes; i += vector_bytes) {
            std::byte* target = placed(map, copy.shared, r * bytes + i);
            std::memcpy(target, row + i, vector_bytes);
            std::memcpy(execution.shared.seen_by_copies(target), row + i, vector_bytes);
        }
    }
    bring_to_barrier(copy.barrier, static_cast<int>(box_bytes(map)), copy.site);
}

void perform_store(const BoxCopy& copy) {
    const TensorMap& map = copy.map;
    const std::size_t bytes = row_bytes(map);
    std::byte row[256 * 4];
    execution.fibers.by_agent(races::store_agent, [&] {
        races::acquire(copy.clock);
        races::reads(copy.shared, box_bytes(map), copy.place);
        see_global(copy, races::writes);
        races::release(&copy.issuer->stores);
        races::release(&execution.end_clock);
    });
    const races::Unseen unseen;
    for (std::size_t r = 0; r < row_count(map); r++) {
        for (std::size_t i = 0; i < bytes; i += vector_bytes)
            read_as_copies_do(placed(map, copy.shared, r * bytes + i), row + i, *copy.issuer, copy.site);
        const RowPiece piece = existing_piece(copy, r);
        if (piece.bytes == 0) continue;
        if (!addresses::may_access(piece.global, piece.bytes))
            fail_as(*copy.issuer, "a copy of a box writes out of bounds", copy.site);
        std::memcpy(piece.global, row + piece.begin, piece.bytes);
    }
}

BoxCopy box_copy(const void* shared, const TensorMap& map, std::uint64_t* barrier, std::initializer_list<int> at,
                 Site site, races::Place place) {
    constexpr std::size_t least_alignment = 128;
    const std::size_t span = static_cast<std::size_t>(map.swizzle);
    check_aligned(shared, std::max(8 * span, least_alignment), "box in shared memory", site);
    if (!execution.shared.dynamic_contains(shared, box_bytes(map)))
        fail("a copy of a box leads outside dynamic shared memory", site);
    if (static_cast<int>(at.size()) != map.rank) fail("coordinates of another rank than the tensor map's", site);
    const races::Unseen unseen;
    BoxCopy copy{map,    static_cast<std::byte*>(const_cast<void*>(shared)), barrier, {}, {}, &running(), site, place,
                 nullptr};
    std::copy(at.begin(), at.end(), copy.at);
    copy.clock = &execution.copy_clocks[execution.copies++ % execution.copy_clocks.size()];
    return copy;
}

void issue_load(const BoxCopy& copy) {
    check_aligned(copy.barrier, sizeof(*copy.barrier), "barrier", copy.site);
    if (!execution.shared.contains(copy.barrier, sizeof(*copy.barrier)) || !is_barrier(copy.barrier))
        fail("a copy of a box at a barrier that was not initialised", copy.site);
    races::release(copy.clock);
    if (!execution.configuration.lazy) return perform_load(copy);
    const races::Unseen unseen;
    execution.loads.push_back(copy);
}

void issue_store(const BoxCopy& copy) {
    races::release(copy.clock);
    if (!execution.configuration.lazy) return perform_store(copy);
    const races::Unseen unseen;
    running().stores.issued.push_back(copy);
}

}  // namespace

TensorMap make_tensor_map(const cuda::TensorMapFields& fields) {
    const TensorMap map{fields};
    const std::string reason = refused(map);
    if (!reason.empty()) throw cuda::CudaError("a tensor map was refused: " + reason);
    return map;
}

void read_as_copies_do(const std::byte* shared, std::byte* to, const Thread& reader, Site site) {
    if (std::memcmp(shared, execution.shared.seen_by_copies(shared), vector_bytes) != 0)
        fail_as(reader,
                "reads byte " + std::to_string(shared - execution.shared.dynamic()) +
                    " of shared memory, which a thread has written without fence_async_copies",
                site);
    std::memcpy(to, shared, vector_bytes);
}

bool perform_oldest_load() {
    if (execution.loads.empty()) return false;
    perform_load(execution.loads.front());
    const races::Unseen unseen;
    execution.loads.pop_front();
    return true;
}

void load_box(void* shared, const TensorMap& map, std::uint64_t* barrier, std::initializer_list<int> at, Site site) {
    if (map.pixels > 0) fail("a box by a tensor map of im2col", site);
    issue_load(box_copy(shared, map, barrier, at, site, __builtin_return_address(0)));
}

void load_windows(void* shared, const TensorMap& map, std::uint64_t* barrier, int channel,
                  std::initializer_list<int> place, std::initializer_list<int> shift, Site site) {
    if (map.pixels == 0) fail("im2col by a tensor map of boxes", site);
    BoxCopy copy = box_copy(shared, map, barrier, {channel, *place.begin(), place.begin()[1], place.begin()[2]}, site,
                            __builtin_return_address(0));
    std::copy(shift.begin(), shift.end(), copy.shift);
    for (const int by : shift)
        if (by < 0 || by > 255) fail("a shift of im2col by " + std::to_string(by) + ": 0 to 255", site);
    issue_load(copy);
}

void store_box(const TensorMap& map, const void* shared, std::initializer_list<int> at, Site site) {
    if (map.pixels > 0) fail("a box by a tensor map of im2col", site);
    issue_store(box_copy(shared, map, nullptr, at, site, __builtin_return_address(0)));
}

void store_windows(const TensorMap& map, const void* shared, int channel, std::initializer_list<int> place, Site site) {
    if (map.pixels == 0) fail("im2col by a tensor map of boxes", site);
    issue_store(box_copy(shared, map, nullptr, {channel, *place.begin(), place.begin()[1], place.begin()[2]}, site,
                         __builtin_return_address(0)));
}

void commit_stores() {
    const races::Unseen unseen;
    BoxStores& stores = running().stores;
    stores.group_ends.push_back(stores.issued.size());
}

void wait_for_stores(int allowed) {
    BoxStores& stores = running().stores;
    const auto groups = static_cast<std::ptrdiff_t>(stores.group_ends.size()) - allowed;
    if (groups > 0) {
        const std::size_t end = stores.group_ends[static_cast<std::size_t>(groups - 1)];
        while (stores.performed < end) perform_store(stores.issued[stores.performed++]);
        if (allowed == 0 && stores.performed == stores.issued.size()) stores.clear();
    }
    races::acquire(&stores);
}

void fence_async_copies(Site site) {
    char token;
    collective(
        0xffffffffu, "fence_async_copies", [](const Lanes&, Site) { execution.shared.show_to_copies(); }, nullptr,
        &token, site);
}

}  // namespace pycv::simt
