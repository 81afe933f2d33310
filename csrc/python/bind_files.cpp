#include "file_sum.hpp"
#include "module.hpp"

namespace py = pybind11;

namespace vampires {
namespace {

py::tuple sum_of_part(int fd, std::uint64_t offset, std::uint64_t n_bytes) {
    FileSum result{};
    {
        const py::gil_scoped_release unlocked;
        result = file_sum(fd, offset, n_bytes);
    }
    return py::make_tuple(result.sum, result.bytes);
}

}  // namespace

void bind_files(py::module_& module) {
    module.def(
        "file_sum", &sum_of_part, py::arg("fd"), py::arg("offset"), py::arg("n_bytes"),
        "The FITS data sum of n_bytes of an open file from offset on, and how many bytes\n"
        "were there: fewer where the file ends. Raises OSError. Not interrupted by\n"
        "signals: ask for a large part in pieces.");
}

}  // namespace vampires
