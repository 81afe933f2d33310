#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "chunk_pool.hpp"
#include "cube_file.hpp"
#include "fits_sum.hpp"
#include "temp_directory.hpp"

using namespace vampires;
using vampires::testing::file_bytes;
using vampires::testing::TempDirectory;
using vampires::testing::TinyDisk;
namespace fs = std::filesystem;

namespace {

using Bytes = std::vector<std::byte>;

// Aligned as direct I/O wants it; every byte tells its place.
class Pages {
  public:
    explicit Pages(std::size_t count, unsigned start = 0)
        : bytes_(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, count * kPageBytes))),
          size_(count * kPageBytes) {
        for (std::size_t k = 0; k < size_; ++k) {
            bytes_.get()[k] = static_cast<std::byte>(start + k + k / 251);
        }
    }
    std::span<const std::byte> span() const { return {bytes_.get(), size_}; }

  private:
    struct Free {
        void operator()(std::byte* bytes) const { std::free(bytes); }
    };
    std::unique_ptr<std::byte, Free> bytes_;
    std::size_t size_;
};

CubeFileNames names_in(const TempDirectory& directory) {
    return {directory / ".cube", directory / ".frames"};
}

Bytes filled(std::size_t bytes, char with) {
    return Bytes(bytes, static_cast<std::byte>(with));
}

Bytes joined(std::initializer_list<std::span<const std::byte>> parts) {
    Bytes whole;
    for (const auto& part : parts) whole.insert(whole.end(), part.begin(), part.end());
    return whole;
}

int error_of(const std::system_error& error) {
    return error.code().value();
}

// errno of what the call throws, 0 when it does not.
template <typename Call>
int thrown(Call call) {
    try {
        call();
    } catch (const std::system_error& error) {
        return error_of(error);
    }
    return 0;
}

// One cube, the same on every disk: header, data that end in a page, journal, extension.
void write_and_finish(const TempDirectory& directory) {
    const CubeFileNames names = names_in(directory);
    constexpr std::size_t kData = 3 * kPageBytes + 100 - kFitsBlock;
    const Pages pages(4);
    const Bytes rows = filled(3 * kFrameRowBytes, 'r');
    const Bytes header = filled(kFitsBlock, 'H');
    const Bytes extension = filled(2 * kFitsBlock, 'E');
    CubeFile file;
    CHECK_FALSE(file.is_open());
    file.open(names, {10 * kPageBytes});
    CHECK(file.is_open());
    CHECK(file.write_pages(pages.span(), 0) == 0);
    // The last page once more, as after a flush.
    CHECK(file.write_pages(pages.span().last(kPageBytes), 3 * kPageBytes) == 0);
    CHECK(file.append_rows(rows) == 0);
    CHECK(file.append_rows({}) == 0);
    CHECK(file.read_rows(2) == filled(2 * kFrameRowBytes, 'r'));
    CHECK(thrown([&] { file.read_rows(4); }) == EIO);
    const auto data = pages.span().subspan(kFitsBlock, kData);
    CHECK(file.read_data_sum(kFitsBlock, kData) == fits_sum(data.data(), data.size()));
    for (int times = 0; times < 2; ++times) {
        file.finish(header, kData, extension);
        const std::size_t padding = kFitsBlock - (kFitsBlock + kData) % kFitsBlock;
        CHECK(file_bytes(names.data) ==
              joined({header, data, filled(padding, '\0'), extension}));
    }
    file.close();
    CHECK_FALSE(file.is_open());
    CHECK(file_bytes(names.journal) == rows);
}

}  // namespace

TEST_CASE("a finished file is header, data, zeros up to a block, extension; on disk") {
    const TempDirectory directory;
    write_and_finish(directory);
    CHECK(directory.entries() == 2);
}

TEST_CASE("a finished file is the same on a file system in memory") {
    const TempDirectory directory(true);
    write_and_finish(directory);
}

TEST_CASE("data that end with a block get no padding, and space kept for more is given back") {
    const TempDirectory directory;
    const CubeFileNames names = names_in(directory);
    const Pages pages(45);  // 64 blocks
    CubeFile file;
    file.open(names, {std::size_t{64} << 20});
    REQUIRE(file.write_pages(pages.span(), 0) == 0);
    const Bytes header = filled(kFitsBlock, 'H');
    file.finish(header, pages.span().size() - kFitsBlock, {});
    CHECK(file_bytes(names.data) == joined({header, pages.span().subspan(kFitsBlock)}));
    struct stat status = {};
    REQUIRE(stat(names.data.c_str(), &status) == 0);
    CHECK(static_cast<std::size_t>(status.st_blocks) * 512 < (std::size_t{1} << 20));
}

TEST_CASE("pages that are not aligned for direct I/O are written all the same") {
    const TempDirectory directory;
    CubeFile file;
    file.open(names_in(directory), {4 * kPageBytes});
    const Pages pages(3);
    const auto odd = pages.span().subspan(8, kPageBytes);
    CHECK(file.write_pages(odd, 0) == 0);
    CHECK(file.write_pages(pages.span(), kPageBytes) == 0);
    file.finish(odd.first(kFitsBlock), kPageBytes - kFitsBlock + pages.span().size(), {});
    Bytes written = file_bytes(directory / ".cube");
    written.resize(4 * kPageBytes);
    CHECK(written == joined({odd, pages.span()}));
}

TEST_CASE("the data sum of a long file is that of its bytes, whatever the pieces read") {
    const TempDirectory directory(true);
    const Pages pages(600);
    CubeFile file;
    file.open(names_in(directory), {pages.span().size()});
    REQUIRE(file.write_pages(pages.span(), 0) == 0);
    for (const std::size_t bytes :
         {std::size_t{1}, std::size_t{1} << 20, (std::size_t{2} << 20) + 3}) {
        const auto data = pages.span().subspan(kFitsBlock, bytes);
        CHECK(file.read_data_sum(kFitsBlock, bytes) == fits_sum(data.data(), bytes));
    }
    CHECK(thrown([&] { file.read_data_sum(kFitsBlock, pages.span().size()); }) == EIO);
}

TEST_CASE("opening never replaces a file, and leaves nothing when it fails") {
    for (const char* taken : {".cube", ".frames"}) {
        const TempDirectory directory;
        std::ofstream(directory / taken) << "mine";
        CubeFile file;
        CHECK(thrown([&] { file.open(names_in(directory), {}); }) == EEXIST);
        CHECK_FALSE(file.is_open());
        CHECK(directory.entries() == 1);
        CHECK(file_bytes(directory / taken).size() == 4);
    }
    const TempDirectory directory;
    CubeFile file;
    CHECK(thrown([&] {
              file.open({directory / "none/.cube", directory / "none/.frames"}, {});
          }) == ENOENT);
}

TEST_CASE("a discarded file leaves nothing, opened or not") {
    const TempDirectory directory;
    CubeFile file;
    file.discard();
    file.open(names_in(directory), {});
    CHECK(directory.entries() == 2);
    file.discard();
    CHECK(directory.entries() == 0);
    file.open(names_in(directory), {});  // may be used again
    CHECK(file.is_open());
}

TEST_CASE("a file whose folder was removed is finished under its name") {
    const TempDirectory directory;
    const std::string folder = directory / "night";
    fs::create_directory(folder);
    const Pages pages(3);
    CubeFile file;
    file.open({folder + "/.cube", folder + "/.frames"}, {});
    REQUIRE(file.write_pages(pages.span(), 0) == 0);
    REQUIRE(file.append_rows(filled(kFrameRowBytes, 'r')) == 0);
    fs::remove_all(folder);
    const Bytes header = filled(kFitsBlock, 'H');
    const std::size_t data_bytes = 2 * kPageBytes;
    CHECK(thrown([&] { file.finish(header, data_bytes, {}); }) == ENOENT);
    fs::create_directory(folder);
    file.finish(header, data_bytes, {});
    Bytes finished = file_bytes(folder + "/.cube");
    finished.resize(kFitsBlock + data_bytes);
    CHECK(finished == joined({header, pages.span().subspan(kFitsBlock, data_bytes)}));
    CHECK(file.read_rows(1) == filled(kFrameRowBytes, 'r'));
    file.discard();
    CHECK(fs::is_empty(folder));
}

TEST_CASE(
    "a file whose folder was renamed is finished under its name, and never in a third file") {
    const TempDirectory directory;
    const std::string folder = directory / "night";
    fs::create_directory(folder);
    const Pages pages(2);
    CubeFile file;
    file.open({folder + "/.cube", folder + "/.frames"}, {});
    REQUIRE(file.write_pages(pages.span(), 0) == 0);
    fs::rename(folder, directory / "day");
    const Bytes header = filled(kFitsBlock, 'H');
    CHECK(thrown([&] { file.finish(header, kPageBytes, {}); }) == ENOENT);
    fs::create_directory(folder);
    std::ofstream(folder + "/.cube") << "mine";
    CHECK(thrown([&] { file.finish(header, kPageBytes, {}); }) == EEXIST);
    CHECK(file_bytes(folder + "/.cube").size() == 4);
    fs::remove(folder + "/.cube");
    for (int times = 0; times < 2; ++times) {
        file.finish(header, kPageBytes, {});
        Bytes finished = file_bytes(folder + "/.cube");
        finished.resize(kFitsBlock + kPageBytes);
        CHECK(finished == joined({header, pages.span().subspan(kFitsBlock, kPageBytes)}));
    }
    CHECK(file_bytes(directory / "day/.cube").front() == pages.span().front());
}

TEST_CASE("a file named through its open folder goes with the folder, without a copy") {
    const TempDirectory directory;
    fs::create_directory(directory / "night");
    const int folder = open((directory / "night").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(folder >= 0);
    const std::string path = "/proc/self/fd/" + std::to_string(folder);
    const Pages pages(2);
    CubeFile file;
    file.open({path + "/.cube", path + "/.frames"}, {});
    REQUIRE(file.write_pages(pages.span(), 0) == 0);
    fs::rename(directory / "night", directory / "day");
    fs::create_directory(directory / "night");  // of the next cube
    file.finish(filled(kFitsBlock, 'H'), kPageBytes, {});
    CHECK(file_bytes(directory / "day/.cube").front() == std::byte{'H'});
    CHECK(fs::is_empty(directory / "night"));
    file.discard();
    CHECK(fs::is_empty(directory / "day"));
    close(folder);
}

TEST_CASE("renaming never replaces") {
    const TempDirectory directory;
    std::ofstream(directory / "a") << "new";
    std::ofstream(directory / "b") << "older";
    CHECK_FALSE(rename_new(directory / "a", directory / "b"));
    CHECK(file_bytes(directory / "a").size() == 3);
    CHECK(file_bytes(directory / "b").size() == 5);
    CHECK(rename_new(directory / "a", directory / "c"));
    CHECK_FALSE(fs::exists(directory / "a"));
    CHECK(file_bytes(directory / "c").size() == 3);
    CHECK(thrown([&] { rename_new(directory / "a", directory / "d"); }) == ENOENT);
    sync_directory(directory.path());
    CHECK(thrown([&] { sync_directory(directory / "none"); }) == ENOENT);
    CHECK(thrown([&] { sync_directory(directory / "b"); }) == ENOTDIR);
}

TEST_CASE(
    "on a full disk a write fails with the reason and succeeds again when there is room") {
    const TinyDisk disk(std::size_t{256} << 10);
    if (!disk.available()) return;
    const Pages pages(16);
    CubeFile file;
    file.open(names_in(disk.directory()), {16 * kPageBytes});
    REQUIRE(file.write_pages(pages.span().first(8 * kPageBytes), 0) == 0);
    REQUIRE(file.append_rows(filled(kFrameRowBytes, 'a')) == 0);
    disk.fill();
    CHECK(file.write_pages(pages.span().last(8 * kPageBytes), 8 * kPageBytes) == ENOSPC);
    const Bytes many_rows = filled(200 * kFrameRowBytes, 'b');
    CHECK(file.append_rows(many_rows) == ENOSPC);
    const Bytes header = filled(kFitsBlock, 'H');
    const Bytes extension = filled(20 * kFitsBlock, 'E');
    const std::size_t data_bytes = 8 * kPageBytes - kFitsBlock;
    CHECK(thrown([&] { file.finish(header, data_bytes, extension); }) == ENOSPC);
    disk.make_room();
    CHECK(file.write_pages(pages.span().last(8 * kPageBytes), 8 * kPageBytes) == 0);
    CHECK(file.append_rows(many_rows) == 0);
    CHECK(file.read_rows(201) == joined({filled(kFrameRowBytes, 'a'), many_rows}));
    file.finish(header, data_bytes, extension);
    const Bytes finished = file_bytes(disk.directory() / ".cube");
    const auto data = pages.span().subspan(kFitsBlock, data_bytes);
    const std::size_t padding = kFitsBlock - 8 * kPageBytes % kFitsBlock;
    CHECK(finished == joined({header, data, filled(padding, '\0'), extension}));
    file.discard();
    CHECK(disk.directory().entries() == 0);
}

TEST_CASE(
    "the space of a cube is kept for it, and its files are no longer than what is in them") {
    const TempDirectory directory;
    const CubeFileNames names = names_in(directory);
    const Pages pages(8);
    CubeFile file;
    CubeRoom room = CubeRoom::of(kFitsBlock, 1 << 20, 16);
    room.required = true;
    file.open(names, room);
    if (!file.reserved()) {
        MESSAGE("skipped: this file system keeps no space");
        return;
    }
    const auto size_of = [](const std::string& name) {
        struct stat status = {};
        REQUIRE(stat(name.c_str(), &status) == 0);
        return std::pair(status.st_size, static_cast<std::uint64_t>(status.st_blocks) * 512);
    };
    CHECK(size_of(names.data).first == 0);
    CHECK(size_of(names.data).second >= room.data_bytes);
    CHECK(size_of(names.journal).first == 0);
    CHECK(size_of(names.journal).second >= room.journal_bytes);
    REQUIRE(file.write_pages(pages.span(), 0) == 0);
    REQUIRE(file.append_rows(filled(2 * kFrameRowBytes, 'r')) == 0);
    // What a kill would leave: pages and rows that were written, and not a zero more.
    CHECK(size_of(names.data).first == 8 * kPageBytes);
    CHECK(size_of(names.journal).first == 2 * kFrameRowBytes);
    file.finish(filled(kFitsBlock, 'H'), 7 * kPageBytes, filled(kFitsBlock, 'E'));
    CHECK(size_of(names.data).second < 100 * kPageBytes);
    CHECK(size_of(names.journal).second <= 2 * kPageBytes);
}

TEST_CASE("where the room that is required is not there, nothing is opened and nothing stays") {
    const TinyDisk disk(std::size_t{1} << 20);
    if (!disk.available()) return;
    CubeFile file;
    CubeRoom room = CubeRoom::of(kFitsBlock, 1 << 10, 1000);
    room.required = true;
    CHECK(thrown([&] { file.open(names_in(disk.directory()), room); }) == ENOSPC);
    CHECK_FALSE(file.is_open());
    CHECK(disk.directory().entries() == 0);
    room.required = false;  // as much as there is
    file.open(names_in(disk.directory()), room);
    CHECK(file.is_open());
    CHECK_FALSE(file.reserved());
    file.discard();
}

TEST_CASE("a file larger than this user may make is refused as a full disk is") {
    const TempDirectory directory;
    struct rlimit before = {};
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto signal_before = std::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit small = {std::size_t{1} << 20, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CubeFile file;
    CubeRoom room = CubeRoom::of(kFitsBlock, 1 << 20, 4);
    room.required = true;
    const int error = thrown([&] { file.open(names_in(directory), room); });
    const std::size_t left = directory.entries();
    room.required = false;
    file.open(names_in(directory), room);
    const Pages pages(512);  // 2 MiB
    const int refused = file.write_pages(pages.span(), 0);
    const int taken = file.write_pages(pages.span().first(16 * kPageBytes), 0);
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, signal_before);
    CHECK(error == EFBIG);
    CHECK(left == 0);
    CHECK(refused == EFBIG);
    CHECK(taken == 0);
    file.discard();
}
