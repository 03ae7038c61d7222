#pragma once

#include <annulus/export.h>
#include <annulus/mesh.h>

#include <cstddef>
#include <span>
#include <string_view>

namespace annulus {

/// Small collective calls of the control plane, for trainers and tools around attention: every
/// rank must make the same call. They end with Timeout, naming the ranks that did not come, or
/// CommError.

/// `all` holds world() parts of mine.size() bytes, in rank order.
ANNULUS_API void all_gather(Mesh& mesh, std::span<const std::byte> mine, std::span<std::byte> all,
                            std::string_view what = "all_gather");
ANNULUS_API void barrier(Mesh& mesh, std::string_view what = "barrier");

/// From one rank to another; both call with the same number of bytes and must not be the same rank.
/// They return when the bytes have moved. Not while an Attention call runs on this mesh.
ANNULUS_API void send(Mesh& mesh, int to, std::span<const std::byte> data,
                      std::string_view what = "send");
ANNULUS_API void receive(Mesh& mesh, int from, std::span<std::byte> data,
                         std::string_view what = "receive");

/// Every rank throws InvalidArgument, naming the lowest rank that brought a text and the text.
ANNULUS_API void require_success(Mesh& mesh, std::string_view what, std::string_view error);

}  // namespace annulus
