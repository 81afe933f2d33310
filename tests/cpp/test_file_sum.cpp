#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <system_error>
#include <vector>

#include "file_sum.hpp"
#include "fits_sum.hpp"
#include "temp_directory.hpp"

using namespace vampires;

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes random_bytes(std::size_t n_bytes) {
    std::mt19937 random(static_cast<unsigned>(n_bytes));
    Bytes bytes(n_bytes);
    std::generate(bytes.begin(), bytes.end(),
                  [&random] { return static_cast<std::uint8_t>(random()); });
    return bytes;
}

// A file of its own, open for reading, for as long as the object is.
class ReadFile {
  public:
    explicit ReadFile(const Bytes& bytes) : path_(directory_ / "file") {
        std::FILE* const file = std::fopen(path_.c_str(), "wb");
        REQUIRE(file != nullptr);
        const std::size_t written = std::fwrite(bytes.data(), 1, bytes.size(), file);
        REQUIRE(written == bytes.size());
        std::fclose(file);
        fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        REQUIRE(fd >= 0);
    }
    ~ReadFile() { ::close(fd); }
    ReadFile(const ReadFile&) = delete;
    ReadFile& operator=(const ReadFile&) = delete;

    int fd = -1;

  private:
    testing::TempDirectory directory_;
    std::string path_;
};

}  // namespace

TEST_CASE("every variant sums as fits_sum does, at any length and alignment") {
    const Bytes bytes = random_bytes(5000);
    for (const KernelVariant variant : kKernelVariants) {
        if (!kernel_supported(variant)) continue;
        for (std::size_t first = 0; first < 9; ++first) {
            for (const std::size_t size : {0, 1, 3, 4, 63, 64, 65, 127, 128, 200, 2880, 4900}) {
                CAPTURE(static_cast<int>(variant));
                CAPTURE(size);
                const std::uint8_t* const begin = bytes.data() + first;
                CHECK(fast_sum_with(variant, begin, size) == fits_sum(begin, size));
            }
        }
    }
}

TEST_CASE("sums that are multiples of 2^32 - 1 keep their carries") {
    for (const KernelVariant variant : kKernelVariants) {
        if (!kernel_supported(variant)) continue;
        CHECK(fast_sum_with(variant, Bytes(64 * 1000, 0xFF).data(), 64 * 1000) == 0xFFFFFFFF);
        CHECK(fast_sum_with(variant, Bytes(64 * 1000, 0).data(), 64 * 1000) == 0);
    }
}

TEST_CASE("a file is summed over its pieces, from any byte to any byte") {
    const Bytes bytes = random_bytes(700'001);
    const ReadFile file(bytes);
    for (const std::size_t first : {0, 1, 2880, 262'143, 262'144, 700'000, 700'001}) {
        for (const std::size_t size : {0, 1, 2880, 262'144, 262'145, 700'001}) {
            CAPTURE(first);
            CAPTURE(size);
            const std::size_t there = std::min(size, bytes.size() - first);
            const FileSum found = file_sum(file.fd, first, size);
            CHECK(found.bytes == there);
            CHECK(found.sum == fits_sum(bytes.data() + first, there));
        }
    }
}

TEST_CASE("parts of a file add up to the whole") {
    const Bytes bytes = random_bytes(600'000);
    const ReadFile file(bytes);
    std::uint32_t sum = 0;
    for (std::size_t first = 0; first < bytes.size(); first += 7001) {
        const FileSum part = file_sum(file.fd, first, 7001);
        sum = sum_add(sum, sum_shift(part.sum, first));
    }
    CHECK(sum == fits_sum(bytes.data(), bytes.size()));
}

TEST_CASE("behind the end of a file there is nothing, and an error is an error") {
    const ReadFile file(Bytes(10, 1));
    CHECK(file_sum(file.fd, 10, 100).bytes == 0);
    CHECK_THROWS_AS(file_sum(-1, 0, 1), std::system_error);
    const testing::TempDirectory directory;
    const int folder = ::open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(folder >= 0);
    CHECK_THROWS_AS(file_sum(folder, 0, 1), std::system_error);
    ::close(folder);
}
