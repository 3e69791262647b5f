// SPDX-License-Identifier: Apache-2.0
// Settings that are allowed but probably not intended, whatever the method.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "seer/method/method.hpp"
#include "seer/run/trainer.hpp"

namespace seer::run {

std::vector<std::string> doubts(const config::Config& c, const Setting& run) {
  method::Doubts out{run.updates};
  const auto batch = c.data.global_batch, images = static_cast<std::int64_t>(run.images);
  if (c.data.source == "shards")
    out.when(
        batch > images, "data.global_batch", batch,
        fmt::format("more than the {} images of the data set, so an update contains images more than once", images));
  const auto group = std::min(c.parallel.bn_group_size, run.ranks);
  out.when(batch / run.ranks * group == 1, "parallel.bn_group_size", c.parallel.bn_group_size,
           fmt::format("BatchNorm takes its statistics over a single image (data.global_batch = {} on {} ranks)", batch,
                       run.ranks));
  method::kind(c).doubts(c, images, out);

  for (const auto& [key, values] :
       {std::pair("augment.mean", &c.augment.mean), std::pair("augment.std", &c.augment.std)}) {
    const double most = *std::max_element(values->begin(), values->end());
    out.when(most > 2, key, most, "it is for pixels from 0 to 1; this looks like a value for pixels from 0 to 255");
  }
  const auto& s = c.schedule;
  out.when(s.warmup_updates > 0 && s.lr_start > s.lr_peak, "schedule.lr_start", s.lr_start,
           "the rate falls in the warm-up");
  out.when(s.kind == "cosine" && s.lr_final > s.lr_peak, "schedule.lr_final", s.lr_final, "the rate rises to the end");
  out.never("schedule.warmup_updates", s.warmup_updates, s.warmup_updates + 1, "schedule.lr_peak is never reached");
  out.when(s.epochs > 0 && s.total_updates != config::Schedule().total_updates, "schedule.total_updates",
           s.total_updates, "without effect, schedule.epochs sets the length");
  if (const auto& first = c.continuing; !c.model.init_from.empty()) {
    out.never("continue.freeze_trunk_updates", first.freeze_trunk_updates, first.freeze_trunk_updates + 1,
              "the trunk is never trained");
    if (first.ramp_updates > 0)
      out.never("continue.ramp_updates", first.ramp_updates, first.freeze_trunk_updates + first.ramp_updates + 1,
                "the trunk never has the whole rate");
  }
  out.when(c.watch.every == 0 && (!c.watch.train.empty() || !c.watch.test.empty() || c.watch.patience > 0),
           "watch.every", c.watch.every, "the other keys of [watch] are without effect");
  const auto side = c.crops.front().size, resize = c.watch.resize > 0 ? c.watch.resize : side,
             crop = c.watch.crop > 0 ? c.watch.crop : side;
  out.when(c.watch.every != 0 && crop > resize, "watch.crop", crop,
           fmt::format("larger than watch.resize = {}, so images get a black border", resize));
  if (s.kind == "multistep" && !s.milestones.empty())
    out.never("schedule.milestones", s.milestones.back(), s.milestones.back() + 1, "never reached");
  if (s.kind == "multistep" && !s.milestone_epochs.empty())
    out.when(s.milestone_epochs.back() >= s.epochs, "schedule.milestone_epochs", s.milestone_epochs.back(),
             "never reached");
  if (s.kind != "multistep") {
    const std::string without = "without effect, for schedule.kind is not \"multistep\"";
    out.when(!s.milestones.empty(), "schedule.milestones", fmt::format("[{}]", fmt::join(s.milestones, ", ")), without);
    out.when(!s.milestone_epochs.empty(), "schedule.milestone_epochs",
             fmt::format("[{}]", fmt::join(s.milestone_epochs, ", ")), without);
  }
  if (s.kind == "plateau") {  // the first window is only the reference for later ones
    out.never("schedule.plateau_window", s.plateau_window, s.warmup_updates + 2 * s.plateau_window + 1,
              "the rate is never cut");
  }
  const auto& k = c.checkpoint;
  out.never("checkpoint.every_updates", k.every_updates, k.every_updates, "there is no checkpoint before its end");
  out.never("checkpoint.local_every_updates", k.local_every_updates, k.local_every_updates,
            "there is no local copy before its end");
  out.never("checkpoint.keep_every", k.keep_every, k.keep_every, "without effect");
  out.never("guard.replay_every", c.guard.replay_every, c.guard.replay_every, "no update is done twice");
  if (c.guard.loss_z_score > 0)
    out.never("guard.loss_window", c.guard.loss_window, c.guard.loss_window + 1, "no loss is judged");
  out.never("log.every", c.log.every, c.log.every, "only the first update and the last are logged");
  const auto limit_s = config::walltime_seconds(c.log.walltime).value_or(0);
  out.when(run.job_ends_s && static_cast<double>(limit_s) > *run.job_ends_s, "log.walltime", c.log.walltime,
           "without effect, the job ends before");
  return out.lines;
}

}  // namespace seer::run
