// SPDX-License-Identifier: Apache-2.0
#include "seer/weights/exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "seer/base/error.hpp"
#include "seer/base/half.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"

namespace seer::weights {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // as in the safetensors library

[[noreturn]] void fail(const std::string& path, const std::string& what,
                       std::source_location where = std::source_location::current()) {
  throw Error(ExitCode::file, fmt::format("{}: {}", path, what), "", where);
}

std::optional<std::uint64_t> bytes_of_type(const std::string& type) {
  if (type == "F64" || type == "I64" || type == "U64") return 8;
  if (type == "F32" || type == "I32" || type == "U32") return 4;
  if (type == "F16" || type == "BF16" || type == "I16" || type == "U16") return 2;
  if (type == "I8" || type == "U8" || type == "BOOL" || type.starts_with("F8_")) return 1;
  return std::nullopt;
}

// The product of shape and type size. Throws if it overflows.
std::uint64_t tensor_bytes(const std::string& path, const std::string& name, const SafetensorsFile::Entry& entry) {
  const auto size = bytes_of_type(entry.type);
  if (!size) fail(path, fmt::format("tensor {} is of unknown type {}", name, entry.type));
  std::uint64_t bytes = *size;
  for (const auto extent : entry.shape) {
    const auto n = static_cast<std::uint64_t>(extent);
    if (extent < 0 || (n > 0 && bytes > std::numeric_limits<std::uint64_t>::max() / 2 / n))
      fail(path, fmt::format("tensor {} declares an impossible shape", name));
    bytes *= n;
  }
  return bytes;
}

/// Reads values of another type.
template <class Stored>
void convert(const checkpoint::RawFile& file, std::uint64_t offset, std::vector<float>& out) {
  constexpr std::size_t kAtOnce = std::size_t{1} << 20;
  std::vector<Stored> buffer(std::min(out.size(), kAtOnce));
  for (std::size_t done = 0; done < out.size(); done += kAtOnce) {
    const auto n = std::min(kAtOnce, out.size() - done);
    file.read(offset + done * sizeof(Stored), buffer.data(), n * sizeof(Stored));
    for (std::size_t i = 0; i < n; ++i) out[done + i] = static_cast<float>(buffer[i]);
  }
}

std::uint64_t item_bytes(const SafetensorsItem& item) {
  if (item.values == nullptr) return sizeof item.integer;
  return static_cast<std::uint64_t>(checkpoint::elements_of(item.shape)) * sizeof(float);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  std::error_code ec;
  const std::uint64_t file_bytes = std::filesystem::file_size(path, ec);
  if (ec) fail(path, ec.message());
  const checkpoint::RawFile file(path);
  std::uint64_t header_bytes = 0;
  if (file_bytes < sizeof header_bytes) fail(path, fmt::format("{} bytes are no safetensors file", file_bytes));
  file.read(0, &header_bytes, sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > file_bytes - sizeof header_bytes)
    fail(path,
         fmt::format("its first 8 bytes declare a header of {} bytes, the file has {}: no safetensors file, or cut",
                     header_bytes, file_bytes));
  std::string text(header_bytes, '\0');
  file.read(sizeof header_bytes, text.data(), header_bytes);
  data_offset_ = sizeof header_bytes + header_bytes;
  const std::uint64_t data_bytes = file_bytes - data_offset_;
  try {
    // The format has only three levels; deeper nesting would only cost memory.
    const auto shallow = [&](int depth, json::parse_event_t, json&) {
      if (depth > 3) fail(path, "its header is nested deeper than that of a safetensors file");
      return true;
    };
    const auto header = json::parse(text, shallow);
    for (const auto& [name, value] : header.get_ref<const json::object_t&>()) {
      if (name == "__metadata__") {
        for (const auto& [key, item] : value.items())
          if (item.is_string()) metadata_[key] = item.get<std::string>();
        continue;
      }
      Entry entry{value.at("dtype"), value.at("shape"), value.at("data_offsets").at(0), value.at("data_offsets").at(1)};
      if (entry.begin > entry.end || entry.end > data_bytes)
        fail(path, fmt::format("tensor {} lies at bytes {} to {} of {}", name, entry.begin, entry.end, data_bytes));
      if (const auto wanted = tensor_bytes(path, name, entry); wanted != entry.end - entry.begin)
        fail(path, fmt::format("tensor {} needs {} bytes and has {}", name, wanted, entry.end - entry.begin));
      entries_.emplace(name, std::move(entry));
    }
  } catch (const json::exception& e) {
    fail(path, fmt::format("its header is not that of a safetensors file: {}", e.what()));
  }
  // The format requires that tensors fill the data without gaps or overlaps (so that nothing can hide in it).
  std::vector<const Entry*> order;
  for (const auto& [name, entry] : entries_) order.push_back(&entry);
  std::ranges::sort(order, {}, [](const Entry* entry) { return std::pair(entry->begin, entry->end); });
  std::uint64_t at = 0;
  for (const auto* entry : order) {
    if (entry->begin != at) fail(path, fmt::format("its tensors overlap or leave a gap at byte {} of the data", at));
    at = entry->end;
  }
  if (at != data_bytes)
    fail(path, fmt::format("its tensors end at byte {} of the data, the data at {}", at, data_bytes));
}

HostTensor SafetensorsFile::read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail(path_, fmt::format("there is no tensor {}", name));
  const auto& entry = found->second;
  const auto type_bytes = *bytes_of_type(entry.type);
  HostTensor out{entry.shape, std::vector<float>((entry.end - entry.begin) / type_bytes)};
  const checkpoint::RawFile file(path_);
  const auto offset = data_offset_ + entry.begin;
  if (entry.type == "F32")
    file.read(offset, out.values.data(), out.values.size() * sizeof(float));
  else if (entry.type == "F64")
    convert<double>(file, offset, out.values);
  else if (entry.type == "F16")
    convert<Float16>(file, offset, out.values);
  else if (entry.type == "BF16")
    convert<BFloat16>(file, offset, out.values);
  else
    fail(path_, fmt::format("tensor {} is of type {}, wanted F32, F16, BF16 or F64", name, entry.type));
  return out;
}

void write_safetensors(const std::string& path, const std::map<std::string, SafetensorsItem>& items,
                       const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const auto& [name, item] : items) {
    const auto bytes = item_bytes(item);
    header[name] = {
        {"dtype", item.values == nullptr ? "I64" : "F32"}, {"shape", item.shape}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);  // paths need not be UTF-8
  text.resize((text.size() + 7) / 8 * 8, ' ');                                     // data aligned to 8 bytes
  checkpoint::replace_file(path, [&](const std::string& temporary) {
    const checkpoint::RawFile file(temporary, checkpoint::RawFile::Access::create);
    const std::uint64_t header_bytes = text.size();
    file.write(0, &header_bytes, sizeof header_bytes);
    file.write(sizeof header_bytes, text.data(), text.size());
    at = sizeof header_bytes + header_bytes;
    for (const auto& [name, item] : items) {
      const auto* values = item.values == nullptr ? static_cast<const void*>(&item.integer) : item.values;
      file.write(at, values, item_bytes(item));
      at += item_bytes(item);
    }
  });
}

}  // namespace seer::weights
