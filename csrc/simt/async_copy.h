// Asynchronous copies into shared memory, committed in groups: cp.async on the host.
//
// Eager, a copy happens when it is issued, lazy, when its group is waited for: the earliest and the latest moment that
// the device may choose. A kernel has to be right under both.
#pragma once

#include "runtime.h"

namespace pycv::simt {

// Copies the first `valid` of `bytes` (4, 8 or 16) bytes and fills the rest with zeros.
void async_copy(void* shared, const void* global, int bytes, int valid, Site site);
void commit_async_copies();
// Until at most `allowed` of the groups that this thread has committed are under way.
void wait_async_copies(int allowed);

}  // namespace pycv::simt
