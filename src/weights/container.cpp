// SPDX-License-Identifier: Apache-2.0
// Recognises a file of weights. For another tool's, says how to convert it.
#include "seer/weights/exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <string_view>

#include "seer/base/error.hpp"
#include "seer/h5/file.hpp"

namespace seer::weights {
namespace {

namespace fs = std::filesystem;
using Kind = Container::Kind;

constexpr const char* kGiveSafetensors = "give a safetensors file of the PyTorch model";
constexpr const char* kSaveAsOne = "save it as one: model.save_pretrained(..., max_shard_size=\"100GB\")";
constexpr const char* kUnpack = "unpack it, and give the safetensors file in it";
constexpr const char* kDownload = "download the file itself";

constexpr std::int64_t kStart_bytes = 4096, kEnd_bytes = 1 << 20;  // a zip file lists its files at its end

std::string bytes_of(std::ifstream& in, std::int64_t from, std::int64_t count) {
  std::string bytes(static_cast<std::size_t>(count), '\0');
  in.clear();
  in.seekg(from);
  in.read(bytes.data(), count);
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  return bytes;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string python_text(const std::string& path) {
  return (std::ostringstream() << std::quoted(path)).str();
}

std::string beside(const std::string& path, const char* ending) {
  return fs::path(path).replace_extension(ending).string();
}

// Python lines for the conversion. They flatten nested dictionaries; import removes the extra name levels.
std::string conversion(const std::string& path, const std::string& loading) {
  const auto out = beside(path, ".safetensors");
  return fmt::format(
      "convert it with Python (torch, safetensors), then import that:\n"
      "import torch, safetensors.torch\n"
      "def flat(d, at=\"\"):\n"
      "    for k, v in d.items():\n"
      "        if isinstance(v, dict): yield from flat(v, f\"{{at}}{{k}}.\")\n"
      "        elif torch.is_tensor(v): yield f\"{{at}}{{k}}\", v.clone().contiguous()\n"
      "weights = {}\n"
      "safetensors.torch.save_file(dict(flat(weights)), {})\n"
      "# then: seer import {} {} --preset 400mf",
      loading, python_text(out), shell_word(out), shell_word(beside(path, ".h5")));
}

std::string torch_load(const std::string& path) {
  return fmt::format(
      "torch.load({}, map_location=\"cpu\", weights_only=True)  # refused? False, where you trust the file: it may run "
      "code",
      python_text(path));
}

Container in_folder(const fs::path& folder) {
  std::error_code ec;
  const auto has = [&](const char* name) { return fs::exists(folder / name, ec); };
  if (has("state.h5") || has("manifest.json") || has("checkpoints")) return {Kind::ours, "a checkpoint or run", ""};
  const auto inside = [&](const char* name) { return "give the file in it: " + shell_word((folder / name).string()); };
  const struct {
    const char *file, *what;
    std::string remedy;
  } kinds[] = {
      {"model.safetensors", "a folder of transformers or timm", inside("model.safetensors")},
      {"pytorch_model.bin", "a folder of transformers or timm", inside("pytorch_model.bin")},
      {"model.safetensors.index.json", "a folder of a model in several files", kSaveAsOne},
      {"pytorch_model.bin.index.json", "a folder of a model in several files", kSaveAsOne},
      {"saved_model.pb", "a SavedModel of TensorFlow", kGiveSafetensors},
  };
  for (const auto& [file, what, remedy] : kinds)
    if (has(file)) return {Kind::foreign, what, remedy};
  return {Kind::unknown, "a folder", "give a weights file, a checkpoint folder or a run folder"};
}

Container of_zip(const std::string& path, const std::string& list) {
  if (contains(list, "constants.pkl") || contains(list, "/code/"))
    return {Kind::foreign, "a TorchScript program (zip)",
            conversion(path, fmt::format("torch.jit.load({}, map_location=\"cpu\").state_dict()", python_text(path)))};
  if (contains(list, "data.pkl"))
    return {Kind::foreign, "a checkpoint of PyTorch (zip)", conversion(path, torch_load(path))};
  if (contains(list, "model.weights.h5")) return {Kind::foreign, "a model of Keras (zip)", kGiveSafetensors};
  return {Kind::foreign, contains(list, ".npy") ? "an archive of NumPy (npz)" : "a zip archive",
          "give a safetensors file; unpack the archive if it holds one"};
}

Container of_hdf5(const std::string& path) {
  try {
    const auto file = h5::File::open(path);
    if (file.has("/", "format")) return {Kind::ours, "", ""};
    if (file.has("/", "layer_names") || file.has("/", "keras_version") || file.exists("/model_weights"))
      return {Kind::foreign, "an HDF5 file of Keras", kGiveSafetensors};
  } catch (const Error&) {  // whoever opens it reports the error
  }
  return {};
}

}  // namespace

std::string shell_word(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || contains("_./+-=,", std::string_view(reinterpret_cast<const char*>(&c), 1)) ||
           c >= 128;
  });
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

Container container_of(const std::string& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) return in_folder(path);
  std::ifstream in(path, std::ios::binary);
  const auto size = static_cast<std::int64_t>(fs::file_size(path, ec));
  if (!in || ec) return {};
  const auto start = bytes_of(in, 0, kStart_bytes);
  const auto begins = [&](std::string_view with) { return start.starts_with(with); };
  if (begins("\x89HDF\r\n\x1A\n")) return of_hdf5(path);
  if (begins("PK\x03\x04")) return of_zip(path, bytes_of(in, std::max<std::int64_t>(0, size - kEnd_bytes), kEnd_bytes));
  if (start.size() >= 2 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5)
    return {Kind::foreign, "a Python pickle, as older PyTorch saves", conversion(path, torch_load(path))};
  if (start.size() > 8 && start[8] == '{' && start[7] == 0 && start[6] == 0)
    return {Kind::safetensors, "a safetensors file", ""};
  constexpr struct {
    const char *bytes, *what, *remedy;
  } kBeginnings[] = {
      {"\x1F\x8B", "an archive", kUnpack},
      {"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"},
      {"<!DOCTYPE", "a web page", kDownload},
      {"<!doctype", "a web page", kDownload},
      {"<html", "a web page", kDownload},
      {"GGUF", "a GGUF file", kGiveSafetensors},
  };
  for (const auto& [bytes, what, remedy] : kBeginnings)
    if (begins(bytes)) return {Kind::foreign, what, remedy};
  if (start.size() > 262 && start.substr(257, 5) == "ustar") return {Kind::foreign, "an archive", kUnpack};
  if (begins("{") && contains(start, "weight_map"))
    return {Kind::foreign, "the index of a model in several files", kSaveAsOne};
  const auto ending = fs::path(path).extension();
  // A protocol buffer of ONNX: field 1 (the version), then the producer's name or the graph.
  const bool model =
      start.size() > 3 && start[0] == 8 && start[1] > 0 && start[1] < 32 && (start[2] == 18 || start[2] == 58);
  if (ending == ".onnx" || model)
    return {Kind::foreign, "an ONNX model",
            "its BatchNorms may be merged into other layers; give a safetensors file of the original PyTorch model"};
  if (ending == ".safetensors") return {Kind::safetensors, "a safetensors file", ""};
  return {};
}

void require_weights(const std::string& path) {
  const auto found = container_of(path);
  if (std::error_code ignored; found.kind == Kind::unknown && fs::is_directory(path, ignored))
    throw Error(ExitCode::file, path + " is a folder, but neither a run folder nor a checkpoint", found.remedy);
  if (found.kind != Kind::safetensors && found.kind != Kind::foreign) return;
  throw Error(ExitCode::file, fmt::format("{} is {}, wanted a weights file or a checkpoint", path, found.what),
              found.kind == Kind::foreign ? found.remedy : "import it first: " + import_command(path));
}

}  // namespace seer::weights
