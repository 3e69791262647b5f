// SPDX-License-Identifier: Apache-2.0
// Label files that are tables of text, and lists of paths.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "labels.hpp"
#include "pack_parts.hpp"
#include "seer/base/names.hpp"

namespace seer::data {
namespace {

using Fields = std::vector<std::string>;

// Names of columns, in lower case and without "_" and blanks. An earlier one wins.
constexpr std::array kFileColumns = {"file",      "filename", "filepath", "path",    "image", "imagename", "imagepath",
                                     "imagefile", "img",      "imgname",  "imgpath", "fname", "imageid",   "id"};
constexpr std::array kLabelColumns = {"label",    "labels",     "class",        "classes", "classname",
                                      "category", "categories", "labelname",    "target",  "targets",
                                      "tag",      "tags",       "categoryname", "species", "breed"};

std::string plain(const std::string& name) {
  std::string out;
  for (const char c : name)
    if (c != '_' && c != ' ') out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::vector<std::size_t> columns_of(const Fields& header, const auto& words) {
  std::vector<std::size_t> found;
  for (const auto* word : words) {
    for (std::size_t i = 0; i < header.size() && found.empty(); ++i)
      if (plain(header[i]) == word) found.push_back(i);
    if (!found.empty()) break;
  }
  return found;
}

/// Which columns hold the path and the labels.
struct Columns {
  bool header = false;
  std::size_t fields = 0, file = 0, confidence = std::string::npos;
  std::vector<std::size_t> labels;  // empty: all but `file`
  std::vector<std::size_t> flags;   // columns that are classes, of which each line says whether the image has it
  Fields names;                     // of the columns with flags

  Columns(const Fields& first, const Fields& second) {
    const auto files = columns_of(first, kFileColumns);
    header = std::ranges::none_of(first, [](const auto& f) { return is_image_name(f); }) &&
             (!files.empty() || (!second.empty() && is_image_name(second[0])));
    if (!header) return;
    fields = first.size();
    if (!files.empty()) file = files[0];
    labels = columns_of(first, kLabelColumns);
    const auto sure = columns_of(first, std::array{"confidence"});
    if (!sure.empty()) confidence = sure[0];
  }
};

/// Says of a table whether its columns stand for classes: each holds 0 (or -1) for no and 1 for yes, or false and true.
enum class Flag : std::uint8_t { none, no, minus, yes };
Flag flag_of(const std::string& field) {
  const auto text = plain(field);
  if (text == "0" || text == "0.0" || text == "false") return Flag::no;
  if (text == "-1" || text == "-1.0") return Flag::minus;
  return text == "1" || text == "1.0" || text == "true" ? Flag::yes : Flag::none;
}

/// Finds out whether the columns of `text` other than its file's are flags, so that each column is a class; then they
/// become `classes` of `columns`. Error(file): they are, but no header names the classes, or -1 may mean two things.
void find_flags(const std::string& text, const std::string& path, Columns& columns) {
  if (!columns.labels.empty()) return;
  RecordReader records(text, path);
  Fields first, fields;
  records.next(first);
  const auto counts = [&](std::size_t i) {
    return i != columns.file && i != columns.confidence && (first[i].empty() ? !columns.header : true);
  };
  const auto all_flags = [&](const Fields& of) {
    for (std::size_t i = 0; i < of.size(); ++i)
      if (counts(i) && flag_of(of[i]) == Flag::none) return false;
    return true;
  };
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < first.size(); ++i)
    if (counts(i)) found.push_back(i);
  if (found.size() < 2) return;
  bool no = false, minus = false;
  std::size_t rows = 0;
  for (; records.next(fields); ++rows) {
    if (fields.size() != first.size() || !all_flags(fields)) return;
    for (const auto i : found) {
      no = no || flag_of(fields[i]) == Flag::no;
      minus = minus || flag_of(fields[i]) == Flag::minus;
    }
  }
  if (rows == 0) return;  // else they say nothing
  if (!columns.header) {
    if (all_flags(first))
      fail(fmt::format("{}: columns of 0 and 1, but no header that names their classes", path),
           "write a first line such as: image,cat,dog; or the names of an image's classes in its line");
    if (std::ranges::any_of(found, [&](auto i) { return flag_of(first[i]) != Flag::none; })) return;
    columns.header = true;  // the only line without flags
    columns.fields = first.size();
  }
  if (no && minus)
    fail(fmt::format("{}: columns of -1, 0 and 1: -1 may mean unknown or absent", path),
         "write 0 where a class is absent or unknown, and 1 where it is present");
  columns.flags = found;
  columns.names = first;
}

/// The labels of a field: several are separated by ; or |.
void split_labels(const std::string& field, const ClassNames& classes, const auto& use) {
  if (classes.fixed() && classes.contains(field)) return use(field);
  for (std::size_t at = 0; at <= field.size();) {
    const auto end = std::min(field.find_first_of(";|", at), field.size());
    auto label = field.substr(at, end - at);
    label.erase(0, label.find_first_not_of(" \t"));
    label.erase(label.find_last_not_of(" \t") + 1);
    if (!label.empty()) use(label);
    at = end + 1;
  }
}

}  // namespace

RecordReader::RecordReader(std::string_view text, std::string file) : text_(text), file_(std::move(file)) {
  const auto begin = std::min(text.find_first_not_of("\r\n"), text.size());
  const auto line = text.substr(begin, text.find_first_of("\r\n", begin) - begin);
  std::string outside;  // of quotes
  bool quoted = false;
  for (const char c : line) {
    // A quote within a field that does not begin with one is an ordinary character.
    if (c == '"' && (quoted || outside.empty() || std::string_view("\t,; ").find(outside.back()) != std::string::npos))
      quoted = !quoted;
    else if (!quoted)
      outside += c;
  }
  for (const char c : {'\t', ',', ';'})
    if (separator_ == ' ' && outside.find(c) != std::string::npos) separator_ = c;
}

std::string RecordReader::place() const {
  return fmt::format("{}:{}", file_, line_);
}

void RecordReader::skip_blanks() {
  while (at_ < text_.size() && (text_[at_] == ' ' || (text_[at_] == '\t' && separator_ != '\t'))) ++at_;
}

void RecordReader::skip_line_end() {
  if (at_ == text_.size()) return;
  at_ += text_.compare(at_, 2, "\r\n") == 0 ? 2 : 1;
  ++next_line_;
}

std::string RecordReader::quoted_field() {
  std::string out;
  for (++at_;;) {
    if (at_ == text_.size()) fail(place() + ": a quote is not closed", "write \"\" for a quote in a quoted field");
    const char c = text_[at_];
    if (c == '"' && text_.compare(at_, 2, "\"\"") != 0) break;
    if (c == '\n' || (c == '\r' && text_.compare(at_, 2, "\r\n") != 0)) ++next_line_;
    out += c;
    at_ += c == '"' ? 2 : 1;
  }
  ++at_;
  skip_blanks();
  if (!at_line_end() && !is_separator(text_[at_]) && !(separator_ == ' ' && text_[at_ - 1] == ' '))
    fail(place() + ": text after a closing quote", "write \"\" for a quote in a quoted field");
  return out;
}

bool RecordReader::next(Fields& fields) {
  fields.clear();
  for (skip_blanks(); at_ < text_.size() && at_line_end(); skip_blanks()) skip_line_end();
  if (at_ == text_.size()) return false;
  line_ = next_line_;
  for (;;) {
    skip_blanks();
    if (at_ < text_.size() && text_[at_] == '"') {
      fields.push_back(quoted_field());
    } else {
      const auto begin = at_;
      while (!at_line_end() && !is_separator(text_[at_])) ++at_;
      auto& field = fields.emplace_back(text_.substr(begin, at_ - begin));
      field.erase(field.find_last_not_of(" \t") + 1);
    }
    if (separator_ == ' ') skip_blanks();
    if (at_line_end()) break;
    if (separator_ != ' ') ++at_;
  }
  skip_line_end();
  return true;
}

LabelTable read_label_text(const std::string& path, ClassNames classes) {
  auto text = read_text(path);
  Fields first, second;
  RecordReader start(text, path);
  if (!start.next(first)) fail(fmt::format("{}: holds no lines", path), "write one line for each image: file, label");
  start.next(second);
  Columns columns(first, second);
  find_flags(text, path, columns);
  RecordReader records(text, path);
  LabelBuilder builder(path, LabelTable::Unit::line, std::move(classes));
  Fields fields;
  if (columns.header) records.next(fields);
  std::vector<std::int32_t> labels;
  bool any = false;
  std::size_t rows = 0;
  while (records.next(fields)) {
    const auto place = records.place();
    if (columns.header && fields.size() != columns.fields)
      fail(fmt::format("{}: has {} fields, the header has {}", place, fields.size(), columns.fields),
           "quote fields that hold the separator");
    labels.clear();
    const auto take = [&](std::size_t i) {
      split_labels(fields[i], builder.classes(), [&](const std::string& label) {
        labels.push_back(builder.classes().number_of(utf8_name(label), place));
      });
    };
    for (const auto i : columns.flags) {
      const auto number = builder.classes().number_of(utf8_name(columns.names[i]), place);
      if (flag_of(fields[i]) == Flag::yes) labels.push_back(number);
    }
    const bool absent =
        columns.confidence < fields.size() && fields[columns.confidence].find_first_not_of("0.") == std::string::npos;
    if (!absent && !columns.labels.empty()) take(columns.labels[0]);
    for (std::size_t i = 0; columns.labels.empty() && columns.flags.empty() && i < fields.size(); ++i)
      if (i != columns.file) take(i);
    any = any || !labels.empty();
    ++rows;
    builder.add(fields[columns.file], records.line(), place, labels);
  }
  if (rows == 0)
    fail(fmt::format("{}: has a header, but no line of an image", path), "write one line for each image: file, label");
  if (!columns.flags.empty() && !any)
    fail(fmt::format("{}: no image has a class: all of its columns are 0", path), "write 1 where a class is present");
  if (!any)
    fail(fmt::format("{}: names no class: found {} field{} on its first line, wanted a file and its label", path,
                     first.size(), first.size() == 1 ? "" : "s"),
         "separate them with a comma, a tab or a blank; a list of files alone is given with --list");
  text = {};  // before the paths are copied
  return builder.finish(true);
}

LabelTable read_path_list(const std::string& path) {
  auto text = read_text(path);
  std::vector<std::string> lines;
  bool flags = true;  // every line ends with one
  std::vector<std::uint32_t> numbers;
  std::uint32_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find_first_of("\r\n", at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + (text.compare(end, 2, "\r\n") == 0 ? 2 : 1);
    ++number;
    line.resize(line.find_last_not_of(" \t") + 1);
    remove_byte_order_mark(line);  // concatenated lists have one in the middle
    if (line.empty()) continue;
    const auto blank = line.find_last_of(" \t");
    const auto last = line.substr(blank + 1);
    flags = flags && blank != std::string::npos && (last == "-1" || last == "0" || last == "1");
    lines.push_back(std::move(line));
    numbers.push_back(number);
  }
  if (lines.empty()) fail(fmt::format("{}: the list names no file", path), "write one path a line");
  LabelBuilder builder(path, LabelTable::Unit::line, {});
  for (std::size_t i = 0; i < lines.size(); ++i) {
    auto& line = lines[i];
    if (flags) line.resize(line.find_last_not_of(" \t", line.find_last_of(" \t")) + 1);
    builder.add(line, numbers[i], fmt::format("{}:{}", path, numbers[i]), {});
  }
  return builder.finish(false);
}

LabelTable read_labels(const std::string& what, ClassNames classes) {
  const auto after = [&](std::string_view form) {
    return what.starts_with(form) ? std::optional(what.substr(form.size())) : std::nullopt;
  };
  if (const auto path = after("csv:")) return read_label_text(*path, std::move(classes));
  if (const auto path = after("voc:")) return read_label_xml(*path, std::move(classes));
  if (const auto path = after("coco:")) return read_label_json(*path, std::move(classes), Categories::any);
  if (const auto path = after("inat:")) return read_label_json(*path, std::move(classes), Categories::one);
  const auto path = after("auto:").value_or(what);
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return read_label_xml(path, std::move(classes));
  std::string start(64, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in)
    fail(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)),
         "correct the path of the label file, or use --labels folder or --labels none");
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<std::size_t>(in.gcount()));
  remove_byte_order_mark(start);
  const auto first = start.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && start[first] == '{')
    return read_label_json(path, std::move(classes), Categories::any);
  return read_label_text(path, std::move(classes));
}

}  // namespace seer::data
