// SPDX-License-Identifier: Apache-2.0
// SimCLR (method.md 9): pulls each crop's embedding to those of its image's other crops, away from all other images'.
#include <fmt/format.h>

#include <cmath>

#include "seer/device/mirrored.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/ntxent.hpp"
#include "seer/method/collapse.hpp"
#include "seer/method/method.hpp"

namespace seer::method {
namespace {

/// With equal embeddings, each of the other rows has the same share of the sum.
CollapseWatch collapse(const config::Config& c, std::int64_t crops) {
  const auto others = static_cast<double>(crops * c.data.global_batch - 1), positives = static_cast<double>(crops - 1);
  return {std::log(others / positives), 0,
          fmt::format("ln({:g} / {:g}) = {:.4f}, the loss of a network that gives every image the same embedding",
                      others, positives, std::log(others / positives)),
          fmt::format(" a higher simclr.temperature (now {}); head.batchnorm = true (now {}); a lower rate "
                      "(schedule.lr_peak = {})",
                      c.simclr.temperature, c.head.batchnorm, c.schedule.lr_peak)};
}

class Simclr final : public Method {
 public:
  explicit Simclr(const Parts& parts)
      : ranks_(&parts.ranks),
        temperature_(parts.config.simclr.temperature),
        images_(parts.images),
        crops_(parts.crops),
        watch_(collapse(parts.config, parts.crops)),
        numbers_(2, parts.queue.space) {}

  const Share& loss(const Step& step) override {
    auto queue = step.context.queue;
    auto& pool = *step.context.pool;
    const auto mine = step.outputs[0];
    const auto rows = mine.rows(), dim = mine.shape.c, all_rows = rows * ranks_->size(), first = rows * ranks_->rank();
    const auto gather = [&](device::Tensor all) {
      ranks_->all_gather_parts(queue, std::span(all.f32(), static_cast<std::size_t>(all.elems())));
    };
    const auto embeddings = pool.tensor({all_rows, 1, 1, dim});
    kernels::copy(queue, mine, embeddings->slice(first, rows));
    gather(*embeddings);
    const auto products = pool.tensor({rows, 1, 1, all_rows});
    step.context.dnn->gemm(queue, rows, all_rows, dim, mine.f32(), dnn::Transpose::no, embeddings->f32(),
                           dnn::Transpose::yes, products->f32());

    const auto log_all = pool.tensor({all_rows, 1, 1, 1}), log_positive = pool.tensor({all_rows, 1, 1, 1});
    const kernels::Contrast contrast{images_, crops_, first, static_cast<float>(temperature_)};
    kernels::ntxent_sums(queue, *products, contrast, log_all->f32() + first, log_positive->f32() + first,
                         numbers_.on_queue());
    gather(*log_all);
    gather(*log_positive);
    const double each = 1 / static_cast<double>(all_rows);
    kernels::ntxent_gradient(queue, *products, contrast, log_all->f32(), log_positive->f32(),
                             step.gradient_scale * each);
    step.context.dnn->gemm(queue, rows, dim, all_rows, products->f32(), dnn::Transpose::no, embeddings->f32(),
                           dnn::Transpose::no, step.d_output.f32());

    numbers_.fetch(queue);
    queue.wait();
    share_.sums.clear();
    if (queue.space == device::Space::planned) return share_;  // no values
    share_.loss = numbers_.on_host()[0] * each;
    share_.sums.push_back(numbers_.on_host()[1] * each);
    return share_;
  }

  std::vector<Figure> figures(std::span<const double> sums) const override { return {{"contrast_accuracy", sums[0]}}; }
  std::optional<std::string> watch(std::int64_t update, double loss) override { return watch_.observe(update, loss); }
  std::size_t bytes() const override { return numbers_.bytes(); }

 private:
  comm::BlockCommunicator* ranks_;
  double temperature_;
  std::int64_t images_, crops_;
  CollapseWatch watch_;
  device::Mirrored<double> numbers_;  ///< this rank's summed loss, and rows whose nearest other row is a positive
  Share share_;
};

nn::MakeHeads heads(const config::Config& config) {
  auto head = config.head;
  head.prototypes = 0;
  return nn::projection_heads(head);
}

void doubts(const config::Config& c, std::int64_t, Doubts& out) {
  out.prototypes(c);
  out.when(c.data.global_batch == 1, "data.global_batch", c.data.global_batch,
           "each image needs another image to differ from: nothing is learned");
}

}  // namespace

namespace methods {
extern const Kind simclr;
const Kind simclr = {"simclr", heads, make<Simclr>, doubts};
}  // namespace methods

}  // namespace seer::method
