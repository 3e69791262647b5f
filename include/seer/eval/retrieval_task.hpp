// SPDX-License-Identifier: Apache-2.0
// Which images a retrieval query should find: by a query file (docs/formats.md), by names, or by labels.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/shard.hpp"
#include "seer/eval/retrieval.hpp"

namespace seer::eval {

/// A query of a query file.
struct NamedQuery {
  std::string image;
  std::optional<std::array<double, 4>> box;              ///< left, top, right, bottom in pixels: only this is looked at
  std::array<std::vector<std::string>, 3> answers = {};  ///< names: easy, hard, junk
};
/// The text of a query file. Error(file) names the query and what is wrong with it. `path`: for messages.
std::vector<NamedQuery> parse_queries(const std::string& text, const std::string& path);
/// Collective: rank 0 reads the file. Errors are agreed.
std::vector<NamedQuery> read_queries(const comm::Communicator& comm, const std::string& path);

/// Collective. Indices of the images of these names. An image has a name if its stored name is equal, or if none is and
/// the last parts without .jpg, .jpeg, .png or .webp are. Each rank reads the names of its slice. Error(file), agreed:
/// a name that no image or several images have. `whose`: for messages.
std::vector<std::uint64_t> find_images(const comm::Communicator& comm, const data::DataSet& data,
                                       const std::vector<std::string>& names, const std::string& whose);

/// Collective. The revisited protocols easy, medium and hard. `selves`: the queries' own indices in the database, or
/// empty if they are not there.
RetrievalTask revisited_task(const comm::Communicator& comm, const std::vector<NamedQuery>& queries,
                             const std::vector<std::uint64_t>& selves, const data::DataSet& database,
                             const std::string& path);

/// What the images of a set are copies of, on every rank.
struct ImageKeys {
  std::vector<std::uint64_t> keys;     ///< of each image; 0: of nothing (a distractor)
  std::vector<std::uint8_t> group_of;  ///< index into groups
  std::vector<std::string> groups;     ///< kinds of copies: "crop" of a name that ends in "+crop-10"; "": none
};
/// Collective. Images of one label are copies of one original. Error(file) if there are no labels.
ImageKeys keys_by_label(const comm::Communicator& comm, const data::DataSet& data, const std::string& path);
/// Collective. The original is the part of the name that the first group of the regular expression (ECMAScript)
/// matches, or the whole match; images whose names it does not match are copies of nothing. Error(input): not a regular
/// expression; Error(file): no names.
ImageKeys keys_by_name(const comm::Communicator& comm, const data::DataSet& data, const std::string& expression,
                       const std::string& path);
/// All images with the query's key are right answers: together, and each group alone with the others taken out.
/// `same`: the queries are the database; each then is left out of its own ranking.
RetrievalTask copies_task(const std::string& protocol, const ImageKeys& queries, const ImageKeys& database, bool same);

}  // namespace seer::eval
