// SPDX-License-Identifier: Apache-2.0
// Makes shards: packs images (every file is decoded once to check it, and stored byte for byte), or draws them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/image.hpp"
#include "seer/data/subset.hpp"

namespace seer::data {

/// What to do with shards of the same name that the output folder already holds.
enum class Existing : std::uint8_t {
  refuse,   ///< Error(input) if there are any
  replace,  ///< delete them once the new ones are complete
  append,   ///< keep them; the new ones get the numbers after theirs
};

/// What to do with images that the label file does not name.
enum class Unlabelled : std::uint8_t {
  refuse,  ///< Error(file) if there are any
  keep,    ///< pack them without a label
  skip,    ///< leave them out
};

struct PackOptions {
  std::vector<std::string> sources;  ///< folders, .tar[.gz] archives, lists of paths, single images
  std::string folder;                ///< where <name>-00000.h5 ... and rejects.jsonl go
  bool labels = true;                ///< class = name of the folder or archive that holds the image
  std::string label_file;            ///< labels from this file instead, as --labels names it ("": none)
  std::string classes_file;          ///< fixes the names of the classes and their order ("": none)
  std::string list_file;             ///< take only the files that it names, one path a line ("": all)
  bool skip_missing = false;         ///< ignore paths of these files that are not in the sources
  Unlabelled unlabelled = Unlabelled::refuse;
  SubsetChoice subset;  ///< of the accepted images
  std::string split;    ///< take only files below this folder directly inside a source; also the shards'
                        ///< name ("": images)
  bool hidden = false;  ///< also take hidden files and folders
  std::uint64_t shard_bytes = std::uint64_t{1} << 30;  ///< bytes of encoded images per shard; at least one image
  std::int64_t min_side = 1;                           ///< minimum for the shorter side, pixels
  std::int64_t max_pixels = 50'000'000;
  bool reject_duplicates = false;  ///< with append: also duplicates of images in the existing shards
  Existing existing = Existing::refuse;
};

struct PackResult {
  std::uint64_t files = 0;  ///< files examined: accepted and rejected
  std::uint64_t accepted = 0, bytes = 0, shards = 0;
  std::map<std::string, std::uint64_t> rejected;  ///< kind of reason ("broken", "duplicate", ...) -> files
  std::map<std::string, std::uint64_t> left_out;  ///< skipped because of their names: "hidden: .git" -> files, folders
  std::vector<std::string> classes;
  std::uint64_t archives = 0;    ///< archives read inside the sources
  std::uint64_t of_archive = 0;  ///< images whose class is the name of the archive
  std::uint64_t targets = 0;     ///< classes of all images together, where images may have several
  std::uint64_t unlabelled = 0;  ///< images without a class
  double seconds = 0, verify_seconds = 0;
  std::size_t peak_bytes = 0;  ///< peak resident memory, maximum over ranks
};

/// Collective. The output files do not depend on the number of ranks. Makes two passes over the sources: first each of
/// the R ranks decodes every R-th file, then each writes every R-th shard. So a rank holds no more than one image and
/// one buffer, plus about 50 bytes of bookkeeping per image (rank 0 also holds the label file: about 40 bytes per path
/// beside the paths themselves). Shards get their final names once all are complete and
/// synced; <name>.manifest.json is written last. If the call is killed at any time, the folder holds the old set, the
/// new set, or a state that DataSet::open refuses. Warns if several splits are packed together, or if a split takes
/// everything, and about classes of one image if the labels are from a file. Error(file): missing source, folder not
/// writable, no room, no image; labels that do not fit the sources. Error(input): the subset is empty.
PackResult pack(const PackOptions& options, const comm::Communicator& comm);

// Procedural labelled images: a data set for machines without one. A class is a combination of texture, shape and
// layout. Colours, position, size, rotation, background and light are random and independent of the class.

/// Number of combinations. Class c is the same combination whatever the seed and the number of classes.
inline constexpr std::int64_t kSynthClasses = 144;

/// For example "stripes-disc-single".
std::string synth_class_name(std::int64_t index);

/// Draws image `index` of a class, size x size pixels. `index` keys the random numbers.
Image synth_image(std::uint64_t seed, std::uint64_t index, std::int64_t class_index, std::int64_t size);

struct SynthOptions {
  std::string folder;  ///< where <name>-00000.h5 ... go
  std::string name = "images";
  std::int64_t classes = 10;  ///< image i has class i % classes
  std::int64_t images = 10000;
  std::int64_t size = 96;  ///< pixels per side
  std::uint64_t seed = 0;
  Existing existing = Existing::refuse;  ///< append: i starts at the number of images already in the folder
};

struct SynthResult {
  std::uint64_t images = 0, bytes = 0, shards = 0;
  double seconds = 0;
};

/// Collective. Writes JPEGs (quality 90) into shards. The files do not depend on the number of ranks. Error(file).
SynthResult synth(const SynthOptions& options, const comm::Communicator& comm);

}  // namespace seer::data
