// SPDX-License-Identifier: Apache-2.0
// SwAV (method.md 3): codes by Sinkhorn over all ranks, and the loss of predicting each crop's code from the others.
// Host and devices share the code: it queues all work and then reads the results with a single wait.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "embedding_queue.hpp"
#include "seer/device/graph.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/swav.hpp"
#include "seer/method/collapse.hpp"
#include "seer/method/method.hpp"

namespace seer::method {
namespace {

class Swav final : public Method {
 public:
  /// Error(input) from EmbeddingQueue.
  explicit Swav(const Parts& parts)
      : config_(parts.config.swav),
        comm_(&parts.ranks),
        work_(parts.queue),
        head_(parts.heads.at(1).get()),
        images_(parts.images),
        crops_(parts.crops),
        prototypes_(head_->width()),
        embeddings_(config_, comm_->group(), images_, parts.heads.at(0)->width(), work_),
        watch_(swav_collapse(parts.config)),
        stored_pass_(head_->make_pass()),
        numbers_(static_cast<std::size_t>(crops_ + prototypes_) + 3 * assigned() + 1, work_.space),
        largest_(device::Buffer::floats(assigned(), work_.space)) {}

  const Share& loss(const Step& step) override {
    auto& pool = *step.context.pool;
    const auto embeddings = step.outputs[0], scores = step.outputs[1], d_scores = step.d_output;
    collect(step.context, scores);
    const auto prototype_sums = pool.bytes(assigned() * static_cast<std::size_t>(prototypes_) * sizeof(double));
    const auto code_sum = pool.tensor({images_, 1, 1, prototypes_});
    const double weight = step.gradient_scale / (static_cast<double>(images_) * comm_->size() *
                                                 static_cast<double>(assigned()) * static_cast<double>(crops_ - 1));
    // Repairs are rarely needed and must wait for the queue. So the first try has none; on trouble the second has them.
    for (const auto repairs : {Repairs::no, Repairs::yes}) {
      device::GraphKey key;
      for (const auto& t : inputs_) key.add(t);
      for (const auto& t : codes_) key.add(t);
      key.add(scores).add(d_scores).add(*prototype_sums).add(*code_sum).add(weight);
      kernels::fill(work_, numbers_.view(), 0);  // two zero floats are one zero double
      assign(key, static_cast<double*>(prototype_sums->data), repairs);
      repeated_.run(work_, key.add(5), [&] { losses(scores, *code_sum, d_scores, weight); });
      numbers_.fetch(work_);
      work_.wait();
      if (work_.space == device::Space::planned || *numbers(numbers_.on_host()).trouble == 0) break;
    }
    read_numbers(step.gradient_scale);
    embeddings_.offer(step.update, embeddings);
    loans_.clear();
    return share_;
  }
  void accept() override { embeddings_.accept(); }

  std::vector<Figure> figures(std::span<const double> sums) const override {
    double prediction_entropy = 0;
    for (const double p : sums.subspan(1))
      if (p > 0) prediction_entropy -= p * std::log(p);
    return {{"code_entropy", sums[0]}, {"prediction_entropy", prediction_entropy}};
  }
  std::optional<std::string> watch(std::int64_t update, double loss) override { return watch_.observe(update, loss); }

  void save(checkpoint::NamedState& state) const override { embeddings_.save(state); }
  void restore(const checkpoint::NamedState& state, std::int64_t update) override {
    embeddings_.restore(state, update);
  }
  std::size_t bytes() const override { return embeddings_.bytes() + largest_.bytes() + numbers_.bytes(); }
  void assume_filled() override { embeddings_.assume_full(); }

 private:
  /// The numbers of an update that the host reads; pointers into numbers_.
  struct Numbers {
    std::int64_t crops;
    std::size_t assigned;
    double* loss;                        ///< per crop: summed over images and weighted
    double* entropy = loss + crops;      ///< per assigned crop: entropy of its codes, summed over images
    double* total = entropy + assigned;  ///< per assigned crop: sum of its exponentials over all ranks
    double* empty = total + assigned;    ///< per assigned crop: 1 if some prototype has no share
    double* trouble = empty + assigned;  ///< 1: the assignment needs repairs
    double* prediction = trouble + 1;    ///< per prototype: predicted share, summed over rows
  };
  Numbers numbers(double* begin) const { return {crops_, assigned(), begin}; }
  enum class Repairs : bool { no, yes };
  std::size_t assigned() const { return config_.crops_for_assign.size(); }
  device::Tensor of_assigned(device::Tensor rows, std::size_t a) const {
    return rows.slice(config_.crops_for_assign[a] * images_, images_);
  }

  /// Collects the assignment's inputs: for every assigned crop the batch's rows, followed by the queue's.
  void collect(const nn::Context& ctx, device::Tensor scores) {
    auto& pool = *ctx.pool;
    loans_.clear();
    inputs_.clear();
    codes_.clear();
    const std::int64_t stored = embeddings_.rows(), rows = images_ + stored;
    for (std::size_t a = 0; a < assigned(); ++a) {
      loans_.push_back(pool.tensor({rows, 1, 1, prototypes_}));
      codes_.push_back(*loans_.back());
      inputs_.push_back(of_assigned(scores, a));
      if (stored == 0) continue;
      loans_.push_back(pool.tensor({rows, 1, 1, prototypes_}));
      const auto joined = *loans_.back();
      kernels::copy(work_, inputs_.back(), joined.slice(0, images_));
      head_->forward_all(ctx, embeddings_.of_crop(a), *stored_pass_, joined.slice(images_, stored));
      inputs_.back() = joined;
    }
  }

  /// Sinkhorn (method.md 3.2): computes codes_ from inputs_. All assigned crops run together, so that they share
  /// messages. A device runs the work between two messages as one recorded piece.
  void assign(const device::GraphKey& key, double* prototype_sums, Repairs repairs) {
    const auto& q = codes_;
    const std::size_t crops = assigned(), k = static_cast<std::size_t>(prototypes_);
    const auto rows_total = static_cast<double>(q[0].rows()) * comm_->size();
    const auto at = numbers(numbers_.on_queue());
    const auto piece = [&](int place, const auto& work) {
      repeated_.run(work_, device::GraphKey(key).add(place), [&] {
        for (std::size_t a = 0; a < crops; ++a) work(a);
      });
    };
    const std::span sums(prototype_sums, crops * k);
    const auto sum_over_rows = [&](std::size_t a) {
      kernels::sinkhorn_prototype_sums(work_, q[a], prototype_sums + a * k);
    };

    // One maximum per crop, over all ranks: a shift that differed between rows or ranks would change the result.
    piece(0, [&](std::size_t a) { kernels::maximum(work_, inputs_[a], largest_.f32() + a); });
    comm_->all_reduce(work_, std::span(largest_.f32(), crops), comm::Op::max);
    piece(1, [&](std::size_t a) {
      const auto epsilon = static_cast<float>(config_.epsilon);
      kernels::sinkhorn_exponentials(work_, inputs_[a], largest_.f32() + a, epsilon, q[a], at.total + a);
    });
    if (repairs == Repairs::yes) {
      numbers_.fetch(work_);
      work_.wait();
      for (std::size_t a = 0; a < crops; ++a) {
        const bool finite = std::isfinite(numbers(numbers_.on_host()).total[a]);
        if (!finite) kernels::sinkhorn_repair(work_, q[a], at.total + a);
      }
    }
    comm_->all_reduce(work_, std::span(at.total, crops));
    piece(2, [&](std::size_t a) {
      kernels::sinkhorn_divide(work_, q[a], at.total + a, at.trouble);
      sum_over_rows(a);
    });
    for (std::int64_t iteration = 0; iteration < config_.sinkhorn_iterations; ++iteration) {
      comm_->all_reduce(work_, sums);
      if (repairs == Repairs::yes && add_to_empty(prototype_sums)) {
        for (std::size_t a = 0; a < crops; ++a) sum_over_rows(a);
        comm_->all_reduce(work_, sums);
      }
      const bool last = iteration + 1 == config_.sinkhorn_iterations;
      piece(last ? 4 : 3, [&](std::size_t a) {
        kernels::sinkhorn_factors(work_, prototype_sums + a * k, prototypes_, at.trouble);
        kernels::sinkhorn_scale(work_, q[a], prototype_sums + a * k, last ? 1.0 : 1.0 / rows_total);
        if (!last) sum_over_rows(a);
      });
    }
  }

  /// If some prototype has no share at all in a crop, adds a little to every entry of that crop (method.md 3.2 step 5).
  /// Returns true if it changed a crop. All ranks see the same sums, so they decide alike.
  bool add_to_empty(double* prototype_sums) {
    const std::size_t k = static_cast<std::size_t>(prototypes_);
    for (std::size_t a = 0; a < assigned(); ++a)
      kernels::sinkhorn_any_empty(work_, prototype_sums + a * k, prototypes_, numbers(numbers_.on_queue()).empty + a);
    numbers_.fetch(work_);
    work_.wait();
    const double* const empty = numbers(numbers_.on_host()).empty;
    for (std::size_t a = 0; a < assigned(); ++a)
      if (empty[a] != 0) kernels::sinkhorn_add(work_, codes_[a], 1e-12F);
    return std::any_of(empty, empty + assigned(), [](double e) { return e != 0; });
  }

  /// Every crop predicts the codes of the other assigned crops (method.md 3.3). `code_sum`: scratch for their sum.
  void losses(device::Tensor scores, device::Tensor code_sum, device::Tensor d_scores, double weight) {
    const auto at = numbers(numbers_.on_queue());
    const auto temperature = static_cast<float>(config_.temperature);
    for (std::int64_t v = 0; v < crops_; ++v) {
      int count = 0;
      for (std::size_t a = 0; a < assigned(); ++a) {
        if (config_.crops_for_assign[a] == v) continue;
        const auto code = codes_[a].slice(0, images_);
        if (count++ == 0)
          kernels::copy(work_, code, code_sum);
        else
          kernels::add(work_, code, code_sum);
      }
      const auto d_crop = d_scores.slice(v * images_, images_);
      if (count == 0) {  // the only assigned crop predicts nothing
        kernels::fill(work_, d_crop, 0);
      } else {
        kernels::swav_cross_entropy(work_, scores.slice(v * images_, images_), code_sum, count, temperature, weight,
                                    d_crop, at.loss + v);
      }
    }
    for (std::size_t a = 0; a < assigned(); ++a) {
      kernels::row_entropies(work_, codes_[a].slice(0, images_), at.entropy + a);
      kernels::add_predictions(work_, of_assigned(scores, a), temperature, at.prediction);
    }
  }

  /// Sets share_: the loss, and for the figures the mean code entropy and the mean predicted distribution of this rank.
  void read_numbers(double gradient_scale) {
    share_.loss = 0;
    share_.sums.clear();
    if (work_.space == device::Space::planned) return;  // no values
    const auto at = numbers(numbers_.on_host());
    for (std::int64_t v = 0; v < crops_; ++v) share_.loss += at.loss[v];
    share_.loss /= gradient_scale;
    double entropy = 0;
    for (std::size_t a = 0; a < assigned(); ++a)
      entropy += at.entropy[a] / static_cast<double>(images_) / static_cast<double>(assigned());
    share_.sums.push_back(entropy / comm_->size());
    const auto codes = static_cast<double>(images_ * comm_->size() * static_cast<std::int64_t>(assigned()));
    for (std::int64_t k = 0; k < prototypes_; ++k) share_.sums.push_back(at.prediction[k] / codes);
  }

  config::Swav config_;
  comm::BlockCommunicator* comm_;
  device::Queue work_;
  const nn::Chain* head_;  ///< the prototypes
  std::int64_t images_, crops_, prototypes_;
  EmbeddingQueue embeddings_;
  CollapseWatch watch_;
  std::unique_ptr<nn::Pass> stored_pass_;  ///< for the scores of the queue
  device::Repeated repeated_;              ///< on a device: recorded pieces of the assignment and the loss
  device::Mirrored<double> numbers_;
  device::Buffer largest_;  ///< per assigned crop: its largest score

  // Used within one call; members only to reuse their memory.
  std::vector<device::Loan> loans_;
  std::vector<device::Tensor> inputs_, codes_;  ///< per assigned crop: [rows, prototypes]
  Share share_;
};

nn::MakeHeads heads(const config::Config& config) {
  return nn::projection_heads(config.head, config.swav.freeze_prototypes_updates);
}

void doubts(const config::Config& c, std::int64_t images, Doubts& out) {
  const auto batch = c.data.global_batch;
  const auto rows = c.swav.queue_length / batch * batch;  // used queue rows
  if (c.data.source == "shards") {
    out.when(
        batch <= images && rows + batch > images, "swav.queue_length", c.swav.queue_length,
        fmt::format("with the batch more than the {} images of the data set, so codes use some images more than once",
                    images));
    out.when(c.head.prototypes > images, "head.prototypes", c.head.prototypes,
             fmt::format("more than the {} images of the data set", images));
  }
  out.when(batch == 1 && rows == 0, "data.global_batch", batch,
           "codes of a single image are the same for every prototype: nothing is learned");
  out.when(rows != c.swav.queue_length && rows > 0, "swav.queue_length", c.swav.queue_length,
           fmt::format("{} are used, a multiple of data.global_batch", rows));
  if (rows > 0) {
    out.never("swav.queue_start_update", c.swav.queue_start_update, c.swav.queue_start_update + 1,
              "the queue is not used");
    if (c.swav.queue_start_update < out.updates) {
      out.never("swav.queue_length", c.swav.queue_length, c.swav.queue_start_update + rows / batch + 1,
                "the queue has no effect until it is full, and it never is");
    }
  }
  out.never("swav.freeze_prototypes_updates", c.swav.freeze_prototypes_updates, c.swav.freeze_prototypes_updates + 1,
            "the prototypes are never trained");
}

}  // namespace

CollapseWatch swav_collapse(const config::Config& config) {
  const auto prototypes = config.head.prototypes;
  const double ln_prototypes = std::log(static_cast<double>(prototypes));
  const auto& swav = config.swav;
  const auto meaning =
      fmt::format("ln K = {:.4f} (K = {} prototypes), the loss of a network that predicts the same for every image",
                  ln_prototypes, prototypes);
  // The batch needs enough images for the prototypes, because Sinkhorn spreads them evenly over all prototypes.
  const auto advice = fmt::format(
      "{} fewer prototypes for the batch (head.prototypes = {}, data.global_batch = {}) or a {} (swav.queue_length = "
      "{}); longer freezing (swav.freeze_prototypes_updates = {}); a lower rate (schedule.lr_peak = {})",
      swav.epsilon > 0.015 ? fmt::format(" swav.epsilon = 0.01 to 0.02 (now {});", swav.epsilon) : "", prototypes,
      config.data.global_batch, swav.queue_length > 0 ? "longer queue" : "queue", swav.queue_length,
      swav.freeze_prototypes_updates, config.schedule.lr_peak);
  return {ln_prototypes, swav.freeze_prototypes_updates, meaning, advice};
}

namespace methods {
extern const Kind swav;
const Kind swav = {"swav", heads, make<Swav>, doubts};
}  // namespace methods

}  // namespace seer::method
