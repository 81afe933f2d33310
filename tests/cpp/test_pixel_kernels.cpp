#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "fits_sum.hpp"
#include "pixel_kernels.hpp"

using namespace vampires;

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Dtype {
    PixelType type;
    const char* name;
    bool top_bit_flips;
};

constexpr Dtype kDtypes[] = {
    {PixelType::u8, "u8", false},   {PixelType::i8, "i8", true},
    {PixelType::u16, "u16", true},  {PixelType::i16, "i16", false},
    {PixelType::u32, "u32", true},  {PixelType::i32, "i32", false},
    {PixelType::u64, "u64", true},  {PixelType::i64, "i64", false},
    {PixelType::f32, "f32", false}, {PixelType::f64, "f64", false},
    {PixelType::f16, "f16", false},
};

std::vector<KernelVariant> supported_variants() {
    std::vector<KernelVariant> variants;
    for (const KernelVariant variant : kKernelVariants) {
        if (kernel_supported(variant)) {
            variants.push_back(variant);
        }
    }
    return variants;
}

Bytes random_bytes(std::size_t n_bytes) {
    std::mt19937_64 random(n_bytes);
    Bytes bytes(n_bytes + 8);
    for (std::size_t i = 0; i < n_bytes; i += 8) {
        const std::uint64_t word = random();
        std::memcpy(&bytes[i], &word, 8);
    }
    bytes.resize(n_bytes);
    return bytes;
}

// The definition: big-endian words, every carry brought around at once.
std::uint32_t naive_sum(const Bytes& bytes, std::size_t first_byte = 0) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        sum += std::uint64_t{bytes[i]} << (24 - 8 * ((first_byte + i) % 4));
        sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    }
    return static_cast<std::uint32_t>(sum);
}

float naive_half(unsigned half) {
    const int exponent = static_cast<int>(half >> 10 & 31);
    const int mantissa = static_cast<int>(half & 1023);
    float value = std::ldexp(static_cast<float>(mantissa), -24);
    if (exponent == 31) {
        value = mantissa == 0 ? std::numeric_limits<float>::infinity()
                              : std::numeric_limits<float>::quiet_NaN();
    } else if (exponent != 0) {
        value = std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    }
    return half >> 15 != 0 ? -value : value;
}

// The payload of a half NaN ends up in the top bits of the float's, made quiet.
std::uint32_t naive_half_bits(unsigned half) {
    const bool is_nan = (half & 0x7FFF) > 0x7C00;
    const std::uint32_t nan_bits = (half & 0x8000) << 16 | 0x7FC00000 | (half & 0x3FF) << 13;
    return is_nan ? nan_bits : std::bit_cast<std::uint32_t>(naive_half(half));
}

Bytes naive_convert(const Dtype& dtype, const Bytes& source) {
    Bytes converted;
    const std::size_t width = pixel_bytes(dtype.type);
    for (std::size_t i = 0; i + width <= source.size(); i += width) {
        if (dtype.type == PixelType::f16) {
            const std::uint32_t bits = naive_half_bits(source[i] + 256U * source[i + 1]);
            for (int shift = 24; shift >= 0; shift -= 8) {
                converted.push_back(static_cast<std::uint8_t>(bits >> shift));
            }
            continue;
        }
        for (std::size_t k = width; k-- > 0;) {
            const bool is_top = k + 1 == width && dtype.top_bit_flips;
            converted.push_back(static_cast<std::uint8_t>(source[i + k] ^ (is_top ? 128 : 0)));
        }
    }
    return converted;
}

// n_bytes at an address with the given remainder of 64. Nothing follows them, so that the
// address sanitizer sees an access past their end.
class PlacedBytes {
  public:
    PlacedBytes(std::size_t n_bytes, std::size_t alignment)
        : memory_(static_cast<std::uint8_t*>(
              ::operator new(64 + alignment + n_bytes, std::align_val_t{64}))),
          first_(memory_.get() + 64 + alignment),
          n_bytes_(n_bytes) {
        std::memset(memory_.get(), kUntouched, 64 + alignment + n_bytes);
    }

    std::uint8_t* data() { return first_; }
    bool equals(const Bytes& bytes) const {
        return n_bytes_ == bytes.size() && std::equal(bytes.begin(), bytes.end(), first_);
    }
    bool untouched_before() const {
        return std::all_of(static_cast<const std::uint8_t*>(memory_.get()),
                           static_cast<const std::uint8_t*>(first_),
                           [](std::uint8_t byte) { return byte == kUntouched; });
    }
    bool untouched_from(std::size_t first_byte) const {
        return std::all_of(static_cast<const std::uint8_t*>(first_) + first_byte,
                           static_cast<const std::uint8_t*>(first_) + n_bytes_,
                           [](std::uint8_t byte) { return byte == kUntouched; });
    }

  private:
    struct Free {
        void operator()(std::uint8_t* memory) const {
            ::operator delete(memory, std::align_val_t{64});
        }
    };
    static constexpr std::uint8_t kUntouched = 0xA5;
    std::unique_ptr<std::uint8_t[], Free> memory_;
    std::uint8_t* first_;
    std::size_t n_bytes_;
};

// One source with what must come of it.
struct Case {
    Case(const Dtype& its_dtype, const Bytes& its_source)
        : dtype(its_dtype),
          source(its_source),
          converted(naive_convert(dtype, source)),
          sum(naive_sum(converted)) {}

    std::size_t n_pixels() const { return source.size() / pixel_bytes(dtype.type); }

    Dtype dtype;
    Bytes source;
    Bytes converted;
    std::uint32_t sum;
};

Case random_case(const Dtype& dtype, std::size_t n_pixels) {
    return Case(dtype, random_bytes(n_pixels * pixel_bytes(dtype.type)));
}

void check_conversion(const Case& test, KernelVariant variant, std::size_t src_alignment,
                      std::size_t dst_alignment) {
    PlacedBytes src(test.source.size(), src_alignment);
    PlacedBytes dst(test.converted.size(), dst_alignment);
    std::copy(test.source.begin(), test.source.end(), src.data());
    const std::uint32_t sum =
        convert_to_fits_with(variant, test.dtype.type, src.data(), dst.data(), test.n_pixels());
    INFO(test.dtype.name, " variant ", static_cast<int>(variant), " pixels ", test.n_pixels(),
         " src at ", src_alignment, " dst at ", dst_alignment);
    REQUIRE(dst.equals(test.converted));
    REQUIRE(dst.untouched_before());
    REQUIRE(sum == test.sum);
}

template <class Function>
void for_each_dtype_and_variant(Function function) {
    for (const Dtype& dtype : kDtypes) {
        for (const KernelVariant variant : supported_variants()) {
            function(dtype, variant);
        }
    }
}

std::size_t file_pixel_bytes(const Dtype& dtype) {
    return fits_form(dtype.type)->bytes_per_pixel;
}

}  // namespace

TEST_SUITE_BEGIN("pixel_kernels");

TEST_CASE("every pixel type but the complex ones has a FITS form") {
    const auto bitpix = [](PixelType type) { return fits_form(type)->bitpix; };
    CHECK(bitpix(PixelType::u8) == 8);
    CHECK(bitpix(PixelType::i8) == 8);
    CHECK(bitpix(PixelType::u16) == 16);
    CHECK(bitpix(PixelType::i16) == 16);
    CHECK(bitpix(PixelType::u32) == 32);
    CHECK(bitpix(PixelType::i32) == 32);
    CHECK(bitpix(PixelType::u64) == 64);
    CHECK(bitpix(PixelType::i64) == 64);
    CHECK(bitpix(PixelType::f32) == -32);
    CHECK(bitpix(PixelType::f64) == -64);
    CHECK(bitpix(PixelType::f16) == -32);
    for (const Dtype& dtype : kDtypes) {
        CHECK(8 * file_pixel_bytes(dtype) ==
              static_cast<std::size_t>(std::abs(bitpix(dtype.type))));
    }
    CHECK_FALSE(fits_form(PixelType::c64));
    CHECK_FALSE(fits_form(PixelType::c128));
}

TEST_CASE("a type without a FITS form writes nothing") {
    for (const KernelVariant variant : supported_variants()) {
        PlacedBytes dst(64, 0);
        const Bytes src = random_bytes(64);
        CHECK(convert_to_fits_with(variant, PixelType::c64, src.data(), dst.data(), 8) == 0);
        CHECK(dst.untouched_from(0));
    }
}

TEST_CASE("the extreme values of each integer type are stored with their BZERO") {
    const auto converted = [](PixelType type, auto value) {
        Bytes file_bytes(sizeof value);
        convert_to_fits(type, &value, file_bytes.data(), 1);
        return file_bytes;
    };
    CHECK(converted(PixelType::u8, std::uint8_t{0xFE}) == Bytes{0xFE});
    CHECK(converted(PixelType::i8, std::int8_t{-128}) == Bytes{0x00});
    CHECK(converted(PixelType::i8, std::int8_t{127}) == Bytes{0xFF});
    CHECK(converted(PixelType::u16, std::uint16_t{0}) == Bytes{0x80, 0x00});
    CHECK(converted(PixelType::u16, std::uint16_t{0xFFFE}) == Bytes{0x7F, 0xFE});
    CHECK(converted(PixelType::i16, std::int16_t{-2}) == Bytes{0xFF, 0xFE});
    CHECK(converted(PixelType::u32, std::uint32_t{1}) == Bytes{0x80, 0, 0, 1});
    CHECK(converted(PixelType::i32, std::int32_t{-2}) == Bytes{0xFF, 0xFF, 0xFF, 0xFE});
    CHECK(converted(PixelType::u64, std::uint64_t{1}) == Bytes{0x80, 0, 0, 0, 0, 0, 0, 1});
    CHECK(converted(PixelType::i64, std::int64_t{1}) == Bytes{0, 0, 0, 0, 0, 0, 0, 1});
    CHECK(converted(PixelType::f32, 1.0F) == Bytes{0x3F, 0x80, 0, 0});
    CHECK(converted(PixelType::f64, 1.0) == Bytes{0x3F, 0xF0, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("every variant converts and sums any number of pixels") {
    for (const Dtype& dtype : kDtypes) {
        const std::size_t step = file_pixel_bytes(dtype);
        for (std::size_t n_pixels = 0; n_pixels <= 300; ++n_pixels) {
            const Case test = random_case(dtype, n_pixels);
            for (const KernelVariant variant : supported_variants()) {
                for (const std::size_t alignment : {0, 8, 24, 56}) {
                    check_conversion(test, variant, n_pixels % 64, alignment);
                }
                check_conversion(test, variant, 0, n_pixels * step % 64);
            }
        }
    }
}

TEST_CASE("every variant converts large frames of odd size") {
    for (const Dtype& dtype : kDtypes) {
        for (const std::size_t n_pixels : {4095, 4097, 65'537, 300'007}) {
            const Case test = random_case(dtype, n_pixels);
            for (const KernelVariant variant : supported_variants()) {
                check_conversion(test, variant, 1, 0);
                check_conversion(test, variant, 0, 64 - file_pixel_bytes(dtype));
            }
        }
    }
}

TEST_CASE("every variant takes a source at any address and a pixel-aligned destination") {
    constexpr std::size_t kFramePixels[] = {197, 4201};
    for (const Dtype& dtype : kDtypes) {
        const std::size_t step = file_pixel_bytes(dtype);
        for (const std::size_t n_pixels : kFramePixels) {
            const Case test = random_case(dtype, n_pixels);
            for (const KernelVariant variant : supported_variants()) {
                for (std::size_t at = 0; at < 64; ++at) {
                    check_conversion(test, variant, at, 5 * step * at % 64);
                }
            }
        }
    }
}

TEST_CASE("nothing is written past the last pixel") {
    for_each_dtype_and_variant([](const Dtype& dtype, KernelVariant variant) {
        const Case test = random_case(dtype, 4099);
        const std::size_t step = file_pixel_bytes(dtype);
        for (std::size_t at = 0; at < 64; at += step) {
            PlacedBytes dst(test.converted.size() + 128, at);
            convert_to_fits_with(variant, dtype.type, test.source.data(), dst.data(), 4099);
            REQUIRE(dst.untouched_from(test.converted.size()));
        }
    });
}

TEST_CASE("all 16-bit floats keep their value, and NaN its payload") {
    Bytes source(2 * 65'536);
    for (std::uint32_t half = 0; half < 65'536; ++half) {
        source[2 * half] = static_cast<std::uint8_t>(half);
        source[2 * half + 1] = static_cast<std::uint8_t>(half >> 8);
    }
    const Case test({PixelType::f16, "f16", false}, source);
    for (const KernelVariant variant : supported_variants()) {
        check_conversion(test, variant, 0, 0);
    }
}

TEST_CASE("NaN payloads of 32 and 64-bit floats are kept bit for bit") {
    const std::uint32_t signalling_32 = 0xFF812345;
    const std::uint64_t signalling_64 = 0x7FF0123456789ABC;
    for (const KernelVariant variant : supported_variants()) {
        const std::vector<std::uint32_t> singles(40, signalling_32);
        const std::vector<std::uint64_t> doubles(40, signalling_64);
        std::vector<std::uint32_t> file_singles(40);
        std::vector<std::uint64_t> file_doubles(40);
        convert_to_fits_with(variant, PixelType::f32, singles.data(), file_singles.data(), 40);
        convert_to_fits_with(variant, PixelType::f64, doubles.data(), file_doubles.data(), 40);
        CHECK(file_singles == std::vector<std::uint32_t>(40, 0x452381FF));
        CHECK(file_doubles == std::vector<std::uint64_t>(40, 0xBC9A78563412F07F));
    }
}

TEST_CASE("the default conversion is by a variant this CPU supports") {
    const std::string name = kernel_variant();
    CHECK((name == "generic" || name == "avx2" || name == "avx512"));
    CHECK((name != "avx512" || kernel_supported(KernelVariant::avx512)));
    CHECK((name != "avx2" || kernel_supported(KernelVariant::avx2)));
    CHECK(kernel_supported(KernelVariant::generic));
    const Case test = random_case(kDtypes[2], 5001);
    Bytes converted(test.converted.size());
    CHECK(convert_to_fits(PixelType::u16, test.source.data(), converted.data(), 5001) ==
          test.sum);
    CHECK(converted == test.converted);
}

TEST_CASE("the carries of sixteen million words of ones all come around") {
    constexpr std::size_t kWords = std::size_t{1} << 24;
    std::vector<std::uint32_t> words(kWords, 0xFFFFFFFF);
    std::vector<std::uint32_t> file_words(kWords);
    CHECK(fits_sum(words.data(), 4 * kWords) == 0xFFFFFFFF);
    for (const KernelVariant variant : supported_variants()) {
        const auto sum_of = [&](PixelType type, std::size_t n_pixels) {
            return convert_to_fits_with(variant, type, words.data(), file_words.data(),
                                        n_pixels);
        };
        CHECK(sum_of(PixelType::u8, 4 * kWords) == 0xFFFFFFFF);
        CHECK(sum_of(PixelType::i16, 2 * kWords) == 0xFFFFFFFF);
        CHECK(sum_of(PixelType::i32, kWords) == 0xFFFFFFFF);
        CHECK(sum_of(PixelType::i64, kWords / 2) == 0xFFFFFFFF);
    }
    // Each word is -1, so their sum is -2^24 modulo 2^32 - 1.
    words.assign(kWords, 0xFFFFFFFE);
    for (const KernelVariant variant : supported_variants()) {
        CHECK(convert_to_fits_with(variant, PixelType::i32, words.data(), file_words.data(),
                                   kWords) == 0xFEFFFFFF);
    }
    CHECK(fits_sum(file_words.data(), 4 * kWords) == 0xFEFFFFFF);
    // Folding the sum of words of ones and a single 1 carries once more.
    words.assign(kWords, 0xFFFFFFFF);
    words[kWords / 2] = 1;
    for (const KernelVariant variant : supported_variants()) {
        CHECK(convert_to_fits_with(variant, PixelType::i32, words.data(), file_words.data(),
                                   kWords) == 1);
    }
    CHECK(fits_sum(file_words.data(), 4 * kWords) == 1);
}

TEST_CASE("the sum is zero only for zero bytes in the file") {
    for_each_dtype_and_variant([](const Dtype& dtype, KernelVariant variant) {
        const std::size_t width = pixel_bytes(dtype.type);
        Bytes source(1001 * width);
        for (std::size_t i = width - 1; dtype.top_bit_flips && i < source.size(); i += width) {
            source[i] = 0x80;
        }
        Case test(dtype, source);
        REQUIRE(test.sum == 0);
        check_conversion(test, variant, 3, 8);
        source[500 * width] ^= 1;
        REQUIRE(Case(dtype, source).sum != 0);
        check_conversion(Case(dtype, source), variant, 3, 8);
    });
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("fits_sum");

TEST_CASE("fits_sum is the sum of big-endian words with a zero-padded tail") {
    for (std::size_t n_bytes = 0; n_bytes < 200; ++n_bytes) {
        const Bytes bytes = random_bytes(n_bytes);
        for (std::size_t alignment = 0; alignment < 8; ++alignment) {
            PlacedBytes placed(n_bytes, alignment);
            std::copy(bytes.begin(), bytes.end(), placed.data());
            REQUIRE(fits_sum(placed.data(), n_bytes) == naive_sum(bytes));
        }
    }
    const Bytes large = random_bytes(1'000'003);
    CHECK(fits_sum(large.data(), large.size()) == naive_sum(large));
    const Bytes ones(1'000'003, 0xFF);
    CHECK(fits_sum(ones.data(), ones.size()) == naive_sum(ones));
}

TEST_CASE("sum_add brings its carry around and tells zero from a multiple of 2^32 - 1") {
    CHECK(sum_add(0, 0) == 0);
    CHECK(sum_add(0xFFFFFFFF, 0) == 0xFFFFFFFF);
    CHECK(sum_add(0xFFFFFFFF, 0xFFFFFFFF) == 0xFFFFFFFF);
    CHECK(sum_add(0xFFFFFFFE, 1) == 0xFFFFFFFF);
    CHECK(sum_add(0xFFFFFFFF, 1) == 1);
    CHECK(sum_add(0x80000000, 0x80000001) == 2);
}

TEST_CASE("sum_shift gives the sum of bytes that begin within a word") {
    for (std::size_t n_bytes = 0; n_bytes < 40; ++n_bytes) {
        const Bytes bytes = random_bytes(n_bytes);
        for (std::size_t offset = 0; offset < 10; ++offset) {
            REQUIRE(sum_shift(naive_sum(bytes), offset) == naive_sum(bytes, offset));
        }
    }
}

TEST_CASE("the sums of pieces of odd lengths add up to the sum of the whole") {
    std::mt19937 random(1);
    for (int trial = 0; trial < 300; ++trial) {
        const Bytes whole = random_bytes(random() % 2000);
        std::uint32_t sum = 0;
        for (std::size_t first = 0; first < whole.size();) {
            const std::size_t n_bytes =
                std::min<std::size_t>(random() % 97, whole.size() - first);
            sum = sum_add(sum, sum_shift(fits_sum(&whole[first], n_bytes), first));
            first += n_bytes;
        }
        REQUIRE(sum == naive_sum(whole));
    }
}

TEST_CASE("the sums of frames of odd size add up to the sum of the cube") {
    for_each_dtype_and_variant([](const Dtype& dtype, KernelVariant variant) {
        constexpr std::size_t kFramePixels = 5 * 7 * 9;
        constexpr std::size_t kFrames = 13;
        const Case cube = random_case(dtype, kFrames * kFramePixels);
        const std::size_t src_bytes = kFramePixels * pixel_bytes(dtype.type);
        const std::size_t dst_bytes = kFramePixels * file_pixel_bytes(dtype);
        PlacedBytes dst(cube.converted.size(), 0);
        std::uint32_t sum = 0;
        for (std::size_t frame = 0; frame < kFrames; ++frame) {
            const std::size_t first_byte = frame * dst_bytes;
            const std::uint32_t frame_sum =
                convert_to_fits_with(variant, dtype.type, &cube.source[frame * src_bytes],
                                     dst.data() + first_byte, kFramePixels);
            sum = sum_add(sum, sum_shift(frame_sum, first_byte));
        }
        REQUIRE(dst.equals(cube.converted));
        REQUIRE(sum == cube.sum);
    });
}

TEST_SUITE_END();
