// Copies of boxes of tensors on the host: cuda/device/tensor_copy.h says what they do.
//
// Eager, a copy happens when it is issued. Lazy, a load happens when no thread can go on without it, in the order of
// issue, and a store when its thread waits for it: the latest moments that the device may choose.
//
// Copies and products of warp groups see shared memory as it was at the last fence_async_copies(), whoever called it,
// and what copies have brought since; a kernel that has them read anything else has forgotten the fence, an error.
#pragma once

#include <initializer_list>

#include "../cuda/device/tensor_fields.h"
#include "runtime.h"

namespace pycv::simt {

struct TensorMap : cuda::TensorMapFields {};

// Throws CudaError where the driver would refuse.
TensorMap make_tensor_map(const cuda::TensorMapFields& fields);

void load_box(void* shared, const TensorMap& map, std::uint64_t* barrier, std::initializer_list<int> at, Site site);
void load_windows(void* shared, const TensorMap& map, std::uint64_t* barrier, int channel,
                  std::initializer_list<int> place, std::initializer_list<int> shift, Site site);
void store_box(const TensorMap& map, const void* shared, std::initializer_list<int> at, Site site);
void store_windows(const TensorMap& map, const void* shared, int channel, std::initializer_list<int> place, Site site);
void commit_stores();
// Until at most `allowed` of the groups of stores that this thread has committed are under way.
void wait_for_stores(int allowed);

void fence_async_copies(Site site);

}  // namespace pycv::simt
