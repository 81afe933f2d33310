// Pixels from native little-endian memory into FITS file form, summed in the same pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "pixel_type.hpp"

namespace vampires {

// How a pixel type is stored in a FITS image.
struct FitsForm {
    int bitpix;                   // the BITPIX keyword
    std::size_t bytes_per_pixel;  // in the file
};

// The form of each pixel type; nullopt for the complex ones, which FITS images do not have.
// Where the signedness is not the one of BITPIX (i8, u16, u32, u64) the top bit is flipped
// and the header needs BZERO = -128, 2^15, 2^31 or 2^63. f16 is widened to 32-bit floats.
std::optional<FitsForm> fits_form(PixelType type) noexcept;

// Converts n_pixels at src into big-endian FITS form at dst and returns the FITS data sum of
// the bytes written, as if the first of them were at a word boundary (see sum_shift).
//
// The output is smaller than 16 GiB. src may have any alignment; dst is aligned to the pixel
// size in the file; the two do not overlap. Every value is kept: f32 and f64 bit for bit, f16
// exactly (a signalling NaN becomes quiet and keeps its payload). Large outputs bypass the
// cache; they are visible to other threads in the usual order. A type without a FITS form
// writes nothing and returns 0.
std::uint32_t convert_to_fits(PixelType type, const void* src, void* dst,
                              std::size_t n_pixels) noexcept;

// The implementations, slowest first. All give the same bytes and sums.
enum class KernelVariant : std::uint8_t { generic, avx2, avx512 };

inline constexpr KernelVariant kKernelVariants[] = {KernelVariant::generic, KernelVariant::avx2,
                                                    KernelVariant::avx512};

// Whether this CPU can run the variant.
bool kernel_supported(KernelVariant variant) noexcept;

// convert_to_fits by one variant, which the CPU must support. For tests and benches.
std::uint32_t convert_to_fits_with(KernelVariant variant, PixelType type, const void* src,
                                   void* dst, std::size_t n_pixels) noexcept;

// The variant convert_to_fits uses on this CPU: "avx512", "avx2" or "generic".
const char* kernel_variant() noexcept;

}  // namespace vampires
