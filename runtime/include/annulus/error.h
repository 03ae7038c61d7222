#pragma once

#include <annulus/export.h>

#include <stdexcept>
#include <string>

namespace annulus {

/// Base of everything the library throws. Each type can be made from one string.
class ANNULUS_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument, or two that cannot go together. The text holds the values. Thrown before any
/// communication, and alike on every rank.
class ANNULUS_API InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// Nothing that is built can serve this. The text says what is built.
class ANNULUS_API Unsupported : public Error {
 public:
  using Error::Error;
};

/// A device (GPU, memory) failed.
class ANNULUS_API DeviceError : public Error {
 public:
  using Error::Error;
};

/// A rank was lost, or ranks disagree. The mesh is dead: rebuild it.
class ANNULUS_API CommError : public Error {
 public:
  using Error::Error;
};

/// A wait passed its deadline. The text names the rank, the step and the item. The mesh is dead.
class ANNULUS_API Timeout : public Error {
 public:
  using Error::Error;
};

}  // namespace annulus
