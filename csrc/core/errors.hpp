// The exceptions of the core, named by meaning. Each text says what, found and expected.
#pragma once

#include <stdexcept>
#include <string>

namespace vampires {

struct StreamError : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// No file of that name in the stream folder.
struct StreamNotFound : StreamError {
    using StreamError::StreamError;
};
// A file is there that is not a stream this version reads.
struct StreamInvalid : StreamError {
    using StreamError::StreamError;
};
// A file is there that its creator has not finished; worth another look in a moment.
struct StreamIncomplete : StreamInvalid {
    using StreamInvalid::StreamInvalid;
};
// The mapped file was truncated under the reader, removed or replaced.
struct StreamGone : StreamError {
    using StreamError::StreamError;
};
// A living program writes the stream already.
struct StreamBusy : StreamError {
    using StreamError::StreamError;
};
// The stream is sound but the operation does not apply to it.
struct StreamUnsupported : StreamError {
    using StreamError::StreamError;
};

}  // namespace vampires
