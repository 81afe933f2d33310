#include "fits_sum.hpp"
#include "module.hpp"
#include "pixel_kernels.hpp"

namespace py = pybind11;

namespace vampires {
namespace {

// Converts into `out` (bytes of file form, writable, contiguous) and returns the data sum.
std::uint32_t convert(const py::array& pixels, const py::buffer& out) {
    const PixelType type = pixel_type_of(pixels.dtype());
    const auto form = fits_form(type);
    if (!form) throw py::type_error("complex pixels have no FITS image form");
    if ((pixels.flags() & py::array::c_style) == 0) {
        throw py::value_error("pixels must be C-contiguous");
    }
    const py::buffer_info target = out.request(true);
    const auto room = static_cast<std::size_t>(target.size * target.itemsize);
    const std::size_t needed = static_cast<std::size_t>(pixels.size()) * form->bytes_per_pixel;
    if (room < needed) {
        throw py::value_error("out has " + std::to_string(room) + " bytes, expected at least " +
                              std::to_string(needed));
    }
    const py::gil_scoped_release unlocked;
    return convert_to_fits(type, pixels.data(), target.ptr,
                           static_cast<std::size_t>(pixels.size()));
}

}  // namespace

void bind_kernels(py::module_& module) {
    module.def("convert_to_fits", &convert, py::arg("pixels"), py::arg("out"),
               "Writes pixels in FITS big-endian form to out and returns their data sum.");
    module.def("kernel_variant", &kernel_variant);
    module.def(
        "fits_sum",
        [](const py::buffer& data) {
            const py::buffer_info info = data.request();
            return fits_sum(info.ptr, static_cast<std::size_t>(info.size * info.itemsize));
        },
        py::arg("data"), "The FITS data sum of bytes in file form.");
}

}  // namespace vampires
