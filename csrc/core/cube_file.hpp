// A FITS file that grows on disk while its cube is taken, and its journal of frames.
//
// Blocks and offsets only; what the header says is not its business. The file is written under
// a hidden name with direct I/O where the file system has it. Until it is finished, header
// blocks, whole frames and their rows in the journal are enough to rebuild the cube.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace vampires {

inline constexpr std::size_t kFitsBlock = 2880;

struct CubeFileNames {
    std::string data;     // hidden name of the growing FITS file
    std::string journal;  // hidden name of its frame rows
};

class CubeFile {
  public:
    CubeFile() = default;
    ~CubeFile() { close(); }
    CubeFile(const CubeFile&) = delete;
    CubeFile& operator=(const CubeFile&) = delete;

    // Creates both files. expected_bytes guides the allocation of disk space ahead of the
    // data. Throws std::system_error with the path; nothing is left behind then.
    void open(const CubeFileNames& names, std::uint64_t expected_bytes);
    bool is_open() const noexcept { return data_fd_ >= 0; }
    bool direct() const noexcept { return direct_; }

    // Writes whole pages at a page-aligned offset. 0, or errno with nothing or part written;
    // to be called again with the same arguments then.
    int write_pages(std::span<const std::byte> pages, std::uint64_t offset) noexcept;
    // Appends rows. 0 or errno; a part written is taken back.
    int append_rows(std::span<const std::byte> rows) noexcept;

    // The first n_rows of the journal. Throws std::system_error.
    std::vector<std::byte> read_rows(std::size_t n_rows);

    // The last steps, each throwing std::system_error; may be repeated after an error.
    // Cuts the file to header and data, sets the header, appends zeros up to a whole block and
    // then the extension; all of it is on disk when this returns.
    void finish(std::span<const std::byte> header, std::uint64_t data_bytes,
                std::span<const std::byte> extension);
    // The data sum of the first data_bytes after the header, read back from the file.
    std::uint32_t read_data_sum(std::uint64_t header_bytes, std::uint64_t data_bytes);
    // When the name leads to the file no more (it or its directory was removed, or moved
    // without the name following), puts the contents into a new file of the name. Throws
    // std::system_error; never replaces another file.
    void restore_if_unlinked();

    void close() noexcept;
    // Closes and removes both files.
    void discard() noexcept;

  private:
    void allocate_ahead(std::uint64_t end) noexcept;

    CubeFileNames names_;
    int data_fd_ = -1;
    int journal_fd_ = -1;
    bool direct_ = false;
    bool allocates_ = false;  // the file system reserves space ahead
    std::uint64_t expected_bytes_ = 0;
    std::uint64_t allocated_bytes_ = 0;
    std::uint64_t journal_bytes_ = 0;
};

// Renames without ever replacing: false when `to` exists. Throws std::system_error otherwise.
bool rename_new(const std::string& from, const std::string& to);
// Makes a rename in the directory durable. Throws std::system_error.
void sync_directory(const std::string& directory);

}  // namespace vampires
