// SPDX-License-Identifier: Apache-2.0
// Label files (docs/formats.md, "Label files"): which classes the images of pack's sources have. Reads tables of text,
// VOC's XML and COCO's JSON, and finds the image that each path means. Private to label_*.cpp and pack*.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "seer/data/shard.hpp"

namespace seer::data {

/// Names of classes, numbered from 0.
class ClassNames {
 public:
  /// Names are added as they come.
  ClassNames() = default;
  /// Reads a file that fixes the names and their order: one name a line, or "name number". Error(file).
  explicit ClassNames(const std::string& file);

  /// The number of a class; of a file's classes also by its number as text. Error(file) if a file fixes the classes and
  /// this is none of them; `place` ("labels.csv:7") says where it was found.
  std::int32_t number_of(const std::string& name, const std::string& place);
  bool contains(const std::string& name) const { return numbers_.contains(name); }
  bool fixed() const { return !file_.empty(); }
  const std::string& file() const { return file_; }
  const std::vector<std::string>& names() const { return names_; }

  /// Sorts the names, as numbers if all are, unless a file fixes them. Returns the new number of each.
  std::vector<std::int32_t> sort();

 private:
  std::string file_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::int32_t> numbers_;
};

/// Paths in the order of their ends, so that those with a common end are neighbours. Holds 12 bytes per path and the
/// paths themselves.
class PathIndex {
 public:
  /// Stores "./a//b.png" as "/a/b.png". `line` is for messages. Error(file) if it has no part.
  void add(std::string_view path, std::uint32_t line, const std::string& place);
  std::size_t size() const { return lines_.size(); }
  std::string_view path(std::size_t i) const {
    return std::string_view(names_).substr(begins_[i], begins_[i + 1] - begins_[i]);
  }
  std::uint32_t line(std::size_t i) const { return lines_[i]; }
  /// Sorts the paths and removes repetitions. Returns the new number of each added path. Must precede find().
  std::vector<std::uint32_t> sort();

  /// How well a path of this index fits a file, weakest first.
  enum class Fit : std::uint8_t { none, same_name, ends_with_file, ends_file };
  struct Found {
    std::uint32_t path = 0;
    Fit fit = Fit::none;
  };
  /// The path that means the file. `file` is "/source/folder/1.png", and its part from `inner` on lies in the source.
  /// A path fits if `file` ends with it (ends_file; the longest such path), else if it alone ends with that part
  /// (ends_with_file), else if it alone has the file's name, or this and the next folders (same_name). If no path has
  /// the ending of an image's name, that of `file` is ignored.
  Found find(std::string_view file, std::size_t inner) const;

 private:
  std::string names_;
  std::vector<std::uint64_t> begins_ = {0};
  std::vector<std::uint32_t> lines_;
  bool endings_ = false;  // some path has the ending of an image's name
};

/// What a label file says.
struct LabelTable {
  std::string file;  ///< for messages
  enum class Unit : std::uint8_t { line, json_image, xml_file } unit = Unit::line;
  std::vector<std::string> classes;  ///< empty for a list of paths
  bool several = false;              ///< images may have several classes, or none
  PathIndex paths;
  Targets targets;           ///< of each path: its classes, ascending
  Targets ignored;           ///< of each path: the classes of which it has only difficult objects (VOC)
  std::uint64_t united = 0;  ///< paths on several lines with different classes

  /// Where path i stands: "labels.csv:7".
  std::string place(std::size_t i) const;
};

/// Reads a label file. `what`: a path, or a form and a path: "csv:", "voc:" (folder), "coco:" or "inat:". `classes`:
/// fixed, or empty. Error(file) says what is wrong, with file and line.
LabelTable read_labels(const std::string& what, ClassNames classes);
/// Reads a list: one path a line. Lines of VOC's ImageSets/Main ("000012 -1") are paths with a flag, which is dropped.
LabelTable read_path_list(const std::string& path);

// The forms.
LabelTable read_label_text(const std::string& path, ClassNames classes);
LabelTable read_label_xml(const std::string& folder, ClassNames classes);
enum class Categories : std::uint8_t { any, one };  ///< of an image
LabelTable read_label_json(const std::string& path, ClassNames classes, Categories categories);

/// Collects what a label file says, row by row.
class LabelBuilder {
 public:
  LabelBuilder(std::string file, LabelTable::Unit unit, ClassNames classes) : classes_(std::move(classes)) {
    table_.file = std::move(file);
    table_.unit = unit;
  }
  ClassNames& classes() { return classes_; }
  void add(std::string_view path, std::uint32_t line, const std::string& place, std::span<const std::int32_t> classes,
           std::span<const std::int32_t> ignored = {});
  /// Sorts the paths, and if `sort_classes` the classes. Unites rows of one path.
  LabelTable finish(bool sort_classes);

 private:
  LabelTable table_;
  ClassNames classes_;
};

/// Reads a text file without its byte order mark. Error(file): not readable, UTF-16, or with zero bytes.
std::string read_text(const std::string& path);

/// Splits text into records of fields. Fields may be quoted (RFC 4180). Lines end with \n, \r\n or \r; empty ones are
/// skipped.
class RecordReader {
 public:
  /// The separator is that of the first line: a tab, else a comma, else a semicolon, else blanks. `file`: for messages.
  RecordReader(std::string_view text, std::string file);
  /// Error(file): a quote that is not closed, or text after a closing quote.
  bool next(std::vector<std::string>& fields);
  /// The line on which the last record begins, from 1.
  std::uint32_t line() const { return line_; }
  std::string place() const;
  char separator() const { return separator_; }

 private:
  std::string quoted_field();
  bool at_line_end() const { return at_ == text_.size() || text_[at_] == '\n' || text_[at_] == '\r'; }
  void skip_blanks();
  void skip_line_end();
  bool is_separator(char c) const { return separator_ == ' ' ? c == ' ' || c == '\t' : c == separator_; }

  std::string_view text_;
  std::string file_;
  std::size_t at_ = 0;
  std::uint32_t line_ = 0, next_line_ = 1;
  char separator_ = ' ';
};

}  // namespace seer::data
