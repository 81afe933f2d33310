// Table of contents of vampires._core.
#include "module.hpp"

PYBIND11_MODULE(_core, module) {
    module.doc() = "The C++ core: streams, pixel kernels, the logger engine, the links.";
    vampires::bind_errors(module);
    vampires::bind_streams(module);
    vampires::bind_kernels(module);
    vampires::bind_engine(module);
    vampires::bind_links(module);
    vampires::bind_files(module);
}
