#include <array>
#include <string>

#include "module.hpp"

namespace py = pybind11;

namespace vampires {
namespace {

struct NumpyType {
    PixelType type;
    const char* name;
};

constexpr std::array<NumpyType, 13> kNumpyTypes{{
    {PixelType::u8, "uint8"},
    {PixelType::i8, "int8"},
    {PixelType::u16, "uint16"},
    {PixelType::i16, "int16"},
    {PixelType::u32, "uint32"},
    {PixelType::i32, "int32"},
    {PixelType::u64, "uint64"},
    {PixelType::i64, "int64"},
    {PixelType::f32, "float32"},
    {PixelType::f64, "float64"},
    {PixelType::c64, "complex64"},
    {PixelType::c128, "complex128"},
    {PixelType::f16, "float16"},
}};

}  // namespace

py::dtype numpy_dtype(PixelType type) {
    return py::dtype(kNumpyTypes[static_cast<std::size_t>(type) - 1].name);
}

PixelType pixel_type_of(const py::dtype& dtype) {
    for (const NumpyType& known : kNumpyTypes) {
        if (dtype.equal(py::dtype(known.name))) return known.type;
    }
    throw py::type_error("dtype " + py::str(dtype).cast<std::string>() +
                         " is none of a stream's: 8 to 64 bit integers, float16/32/64, "
                         "complex64/128, in native byte order");
}

}  // namespace vampires
