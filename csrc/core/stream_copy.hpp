// The stream of this host that follows a stream of another one.
//
// It outlives whoever fills it, so that its readers do: a receiver that starts again takes it
// up where it was. One receiver at a time fills it, which a lock on the file shows (flock; the
// kernel gives it back when the receiver dies), and none takes the place of a living camera.
// For one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "stream_file.hpp"
#include "stream_writer.hpp"

namespace vampires {

class StreamCopy {
  public:
    // Throws StreamInvalid for a name that no stream can have. Makes nothing yet.
    StreamCopy(std::string directory, std::string name);
    ~StreamCopy();
    StreamCopy(const StreamCopy&) = delete;
    StreamCopy& operator=(const StreamCopy&) = delete;

    // Takes up the stream if it is there with this shape and room for as many keywords; else
    // makes it anew, counting from cnt0, in place of one of another shape. True when taken up:
    // its counter goes on.
    // Throws StreamBusy, StreamInvalid (a shape no stream can have), std::system_error.
    bool adopt(const StreamShape& shape, std::uint64_t cnt0 = 0);
    bool adopted() const noexcept { return writer_.has_value(); }
    // The file under its name is still the one adopted.
    bool current() const noexcept {
        return writer_ && writer_->file()->fate() == FileFate::same;
    }
    // Lets go of the stream, which stays.
    void close() noexcept;

    const std::string& name() const noexcept { return name_; }
    const std::string& path() const noexcept { return path_; }
    // Of the stream adopted:
    StreamWriter& writer() noexcept { return *writer_; }
    const StreamFile& file() const noexcept { return *writer_->file(); }
    std::uint64_t slots() const noexcept {
        return file().shape().naxis == 3 ? file().shape().size[2] : 1;
    }
    // The one that holds the newest frame, or would.
    std::uint64_t newest_slot() const noexcept {
        return slots() > 1 ? load(file().metadata().cnt1) : 0;
    }
    std::uint64_t frame_bytes() const noexcept {
        return file().frame_bytes(file().shape().naxis == 3);
    }

  private:
    std::shared_ptr<StreamFile> found();
    bool fits(const StreamFile& file, const StreamShape& shape) const noexcept;

    std::string directory_;
    std::string name_;
    std::string path_;
    std::optional<StreamWriter> writer_;
};

}  // namespace vampires
