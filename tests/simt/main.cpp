// Runs the cases that are named: prints "NAME: ok", "NAME: wrong: ..." or "NAME: error: ..." for each.
#include <cstdio>
#include <cstring>

#include "cases.h"

int main(int count, char** names) {
    for (const cases::Case& it : cases::all()) {
        bool named = false;
        for (int i = 1; i < count; i++) named |= std::strcmp(names[i], it.name) == 0;
        if (!named) continue;
        try {
            it.run();
            std::printf("%s: ok\n", it.name);
        } catch (const pycv::cuda::CudaError& error) {
            std::printf("%s: error: %s\n", it.name, error.what());
        } catch (const cases::WrongResult& error) {
            std::printf("%s: wrong: %s\n", it.name, error.what());
        }
        std::fflush(stdout);
    }
}
