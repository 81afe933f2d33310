#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "pixel_type.hpp"

namespace vampires {

void bind_errors(pybind11::module_& module);
void bind_streams(pybind11::module_& module);
void bind_kernels(pybind11::module_& module);
void bind_engine(pybind11::module_& module);
void bind_links(pybind11::module_& module);
void bind_files(pybind11::module_& module);

// The NumPy dtype of a pixel type, and back. Throws py::type_error for any other dtype.
pybind11::dtype numpy_dtype(PixelType type);
PixelType pixel_type_of(const pybind11::dtype& dtype);

}  // namespace vampires
