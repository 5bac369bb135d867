// Which kernels have run: for tests that are to run all of them.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace pycv::simt {

// Those that this process has launched since this was last asked, by name, each with the most blocks of a launch.
std::map<std::string, std::size_t> launched();

}  // namespace pycv::simt
