#include "stream_writer.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "memory_fence.hpp"
#include "stream_semaphore.hpp"
#include "utc_clock.hpp"

namespace vampires {
namespace {

std::string creation_path(const std::string& directory, const std::string& name) {
    return directory + "/." + name + "." + std::to_string(getpid()) + ".creating";
}

// Allocated, not only sized: running out of shared memory shows here, not as a SIGBUS.
int allocate(int fd, std::uint64_t bytes) {
    int error = EINTR;  // tmpfs gives up for any signal
    while (error == EINTR) error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
    return error;
}

int create_file(const std::string& path, std::uint64_t bytes) {
    unlink(path.c_str());
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : allocate(fd, bytes);
    if (error == 0 && fchmod(fd, 0666) == 0) return fd;
    if (error == 0) error = errno;
    if (fd >= 0) {
        close(fd);
        unlink(path.c_str());
    }
    throw std::system_error(
        error, std::generic_category(),
        "cannot create a stream of " + std::to_string(bytes) + " bytes at " + path);
}

void fill_metadata(StreamFile& file, const StreamSpec& spec) {
    StreamMetadata& md = file.metadata();
    const StreamShape& shape = file.shape();
    std::strncpy(md.name, file.name().c_str(), sizeof md.name - 1);
    md.naxis = shape.naxis;
    std::copy(shape.size.begin(), shape.size.end(), md.size);
    md.nelement = shape.elements();
    md.datatype = static_cast<std::uint8_t>(shape.type);
    md.imagetype = shape.imagetype;
    md.creationtime = md.lastaccesstime = from_ns(utc_now_ns());
    md.creator_pid = md.owner_pid = getpid();
    md.shared = 1;
    md.inode = file.inode();
    md.location = -1;
    md.sem = shape.semaphores;
    md.nb_proctrace = shape.proctraces;
    md.nb_kw = shape.keywords;
    md.cb_size = shape.cb_size;
    md.imdatamemsize = file.layout().data_bytes;
    md.cnt0 = spec.cnt0;
    md.cnt2 = spec.cnt0;  // no writer counts it; as long as both are the same nothing is there
    if (shape.temporal_ring()) md.cnt1 = shape.size[2] - 1;  // the first frame goes to slice 0
    for (std::uint16_t k = 0; k < shape.keywords; ++k) file.keywords()[k].type = 'N';
    for (std::uint16_t k = 0; k < shape.proctraces; ++k) file.proctrace()[k].trigsemindex = -1;
    init_semaphores(file);
    std::strncpy(md.version, spec.version.c_str(), sizeof md.version - 1);
}

}  // namespace

StreamWriter StreamWriter::create(const std::string& directory, const std::string& name,
                                  const StreamSpec& spec) {
    const std::string path = stream_path(directory, name);
    const std::string hidden = creation_path(directory, name);
    const int fd = create_file(hidden, compute_layout(spec.shape).file_bytes);
    try {
        auto file = std::make_shared<StreamFile>(fd, spec.shape, name, path);
        fill_metadata(*file, spec);
        if (rename(hidden.c_str(), path.c_str()) != 0) {
            throw std::system_error(errno, std::generic_category(), "cannot create " + path);
        }
        return StreamWriter(std::move(file));
    } catch (...) {
        unlink(hidden.c_str());
        throw;
    }
}

StreamWriter::StreamWriter(std::shared_ptr<StreamFile> file) noexcept
    : file_(std::move(file)) {}

std::byte* StreamWriter::next_slot() noexcept {
    StreamMetadata& md = file_->metadata();
    std::byte* slot = file_->pixels();
    store(md.write, std::uint8_t{1});
    if (file_->shape().temporal_ring()) {
        slice_ = (load(md.cnt1) + 1) % file_->shape().size[2];
        // A slot in work belongs to no frame: readers that check its counter see that at once.
        store(file_->cnt_array()[slice_], std::uint64_t{0});
        slot += slice_ * frame_bytes();
    }
    full_fence();  // the pixels must not pass the two stores above
    writing_ = true;
    return slot;
}

std::uint64_t StreamWriter::publish(std::int64_t acquired_ns) noexcept {
    if (!writing_) next_slot();
    const std::uint64_t cnt0 = load(file_->metadata().cnt0) + 1;
    publish_as(cnt0, acquired_ns);
    return cnt0;
}

void StreamWriter::publish_as(std::uint64_t cnt0, std::int64_t acquired_ns) noexcept {
    StreamMetadata& md = file_->metadata();
    if (file_->shape().cb_size > 0) copy_to_update_ring();
    store_fence();  // the pixels before the counters below
    const std::int64_t now_ns = utc_now_ns();
    const IsioTime written = from_ns(now_ns);
    const IsioTime acquired = from_ns(acquired_ns != 0 ? acquired_ns : now_ns);
    md.writetime = written;
    md.atime = acquired;
    if (file_->shape().temporal_ring()) {
        file_->writetime_array()[slice_] = written;
        file_->atime_array()[slice_] = acquired;
        store(file_->cnt_array()[slice_], cnt0);
        store(md.cnt1, slice_);
    }
    if (file_->shape().cb_size > 0) {
        RingEntry& entry = file_->cb_metadata()[cb_index_];
        entry = {0, load(md.cnt1), acquired, written};
        store(entry.cnt0, cnt0);
    }
    store(md.cnt0, cnt0);
    store(md.write, std::uint8_t{0});
    writing_ = false;
    post_all(*file_);
}

std::byte* StreamWriter::open_slot(std::uint64_t slice) noexcept {
    const StreamShape& shape = file_->shape();
    if (shape.naxis < 3 || shape.size[2] == 1) {  // all there is: nobody may read it meanwhile
        store(file_->metadata().write, std::uint8_t{1});
        slice = 0;
    }
    if (shape.temporal_ring()) {
        store(file_->cnt_array()[slice], std::uint64_t{0});
    }
    full_fence();  // the pixels must not pass the stores above
    return file_->pixels() + slice * file_->frame_bytes(shape.naxis == 3);
}

void StreamWriter::keep_slot(std::uint64_t slice, std::uint64_t cnt0) noexcept {
    store_fence();
    if (file_->shape().temporal_ring()) store(file_->cnt_array()[slice], cnt0);
}

void StreamWriter::publish_slot(std::uint64_t slice, std::uint64_t cnt0,
                                std::int64_t acquired_ns,
                                std::span<const KeywordEntry> keywords) noexcept {
    StreamMetadata& md = file_->metadata();
    store(md.write, std::uint8_t{1});
    full_fence();
    if (!keywords.empty()) file_->keyword_table().replace(keywords, cnt0 - 1);
    slice_ = slice;
    if (file_->shape().naxis == 3) store(md.cnt1, slice);
    publish_as(cnt0, acquired_ns);
}

void StreamWriter::abandon() noexcept {
    store(file_->metadata().write, std::uint8_t{0});
    writing_ = false;
}

void StreamWriter::copy_to_update_ring() noexcept {
    StreamMetadata& md = file_->metadata();
    const std::uint32_t previous = load(md.cb_index);
    const bool wraps = previous >= file_->shape().cb_size - 1;
    if (wraps) store(md.cb_cycle, load(md.cb_cycle) + 1);
    cb_index_ = wraps ? 0 : previous + 1;
    store(file_->cb_metadata()[cb_index_].cnt0, std::uint64_t{0});
    store(md.cb_index, cb_index_);
    full_fence();
    const std::uint64_t bytes = file_->layout().data_bytes;
    std::memcpy(file_->cb_pixels() + cb_index_ * bytes, file_->pixels(), bytes);
}

bool StreamWriter::set_keyword(const KeywordEntry& entry) noexcept {
    return file_->keyword_table().set(entry);
}

bool StreamWriter::set_keywords(std::span<const KeywordEntry> entries) noexcept {
    return file_->keyword_table().replace(entries, cnt0());
}

}  // namespace vampires
