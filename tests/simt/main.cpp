// Runs the cases that are named: prints "NAME: ok", "NAME: wrong: ..." or "NAME: error: ..." for each. Without names:
// prints the names of all.
#include <cstdio>

#include "cases.h"

int main(int count, char** names) {
    for (const cases::Case& it : cases::all()) {
        if (count == 1) std::puts(it.name.c_str());
        bool named = false;
        for (int i = 1; i < count; i++) named |= it.name == names[i];
        if (!named) continue;
        try {
            it.run();
            std::printf("%s: ok\n", it.name.c_str());
        } catch (const pycv::cuda::CudaError& error) {
            std::printf("%s: error: %s\n", it.name.c_str(), error.what());
        } catch (const cases::WrongResult& error) {
            std::printf("%s: wrong: %s\n", it.name.c_str(), error.what());
        }
        std::fflush(stdout);
    }
}
