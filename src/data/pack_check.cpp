// SPDX-License-Identifier: Apache-2.0
// Decides whether a file goes into a shard.
#include <fmt/format.h>

#include "pack_parts.hpp"
#include "seer/base/checksum.hpp"

namespace seer::data {

using namespace std::string_view_literals;

static const char* kind_of_other(const std::vector<std::uint8_t>& b) {
  const std::string_view start(reinterpret_cast<const char*>(b.data()), std::min<std::size_t>(b.size(), 16));
  if (start.starts_with("GIF8")) return "not supported: GIF";
  for (const auto tiff : {"II*\0"sv, "MM\0*"sv, "II+\0"sv, "MM\0+"sv})
    if (start.starts_with(tiff)) return "not supported: TIFF";
  if (start.starts_with("BM")) return "not supported: BMP";
  if (start.size() >= 12 && start.substr(4, 4) == "ftyp") return "not supported: HEIF, AVIF or video";
  if (start.starts_with("\x89HDF")) return "not an image: HDF5";
  if (start.starts_with("PK\3\4") || start.starts_with("7z\xBC\xAF") || start.starts_with("Rar!"))
    return "not supported: a ZIP, 7z or RAR archive; unpack it, or make a .tar of it";
  if (start.starts_with("\x1F\x8B") || start.starts_with("BZh") || start.starts_with("\xFD\x37zXZ") ||
      start.starts_with("\x28\xB5\x2F\xFD") || (b.size() > 262 && std::memcmp(b.data() + 257, "ustar", 5) == 0))
    return "not supported: an archive or compressed file whose name does not end in .tar .tar.gz .tgz .tar.zst .tar.xz "
           "or .tar.bz2";
  return "not an image: no JPEG, PNG or WebP signature";
}

std::string verify(const std::vector<std::uint8_t>& bytes, const PackOptions& options, Image& scratch,
                   ShardEntry& out) {
  if (bytes.empty()) return "empty: 0 bytes";
  const auto header = read_header(bytes);
  if (header.kind == ImageKind::unknown) return kind_of_other(bytes);
  if (header.width > 0 && header.height > options.max_pixels / header.width)
    return fmt::format("over the pixel limit: {} declares {} x {} pixels, the limit is {}", name_of(header.kind),
                       header.width, header.height, options.max_pixels);
  try {
    decode(bytes, options.max_pixels, scratch);
  } catch (const NotSupported& e) {
    return fmt::format("not supported: {}", e.what());
  } catch (const Error& e) {
    return fmt::format("broken: {}", e.what());
  } catch (const std::bad_alloc&) {
    return fmt::format("broken: no memory to decode {} x {} pixels", header.width, header.height);
  }
  if (std::min(scratch.width, scratch.height) < options.min_side)
    return fmt::format("too small: {} x {} pixels, wanted at least {} a side", scratch.width, scratch.height,
                       options.min_side);
  out.width = static_cast<std::uint32_t>(scratch.width);
  out.height = static_cast<std::uint32_t>(scratch.height);
  out.checksum = checksum(bytes.data(), bytes.size());
  return "";
}

}  // namespace seer::data
