// SPDX-License-Identifier: Apache-2.0
// From staged images to batches on a device. Two batches lie there: while the training computes on one, the next is
// made on a queue of its own, and the queues wait for each other on the device. All calls are of the training's thread;
// only add() and claim() of a Staging are not.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "device_decoder.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#include "seer/kernels/image_batch.hpp"
#include "staging.hpp"

namespace seer::data {

/// The two queues as the feed sees them: batches are made on the side, the training computes on the main one. Each does
/// what it is handed in order; nothing orders one beside the other but the calls here.
class Lanes {
 public:
  virtual ~Lanes() = default;
  virtual device::Space space() const = 0;
  virtual void copy(const void* pinned, void* there, std::size_t bytes) = 0;
  virtual void make(const kernels::CropBatch& batch) = 0;
  /// What is handed to one from now on waits for what the other was handed before now.
  virtual void side_follows_main() = 0;
  virtual void main_follows_side() = 0;
  /// Until the side has done all it was handed.
  virtual void wait_for_side() = 0;
};

/// Beside the queue that the training computes on, which must outlive it.
std::unique_ptr<Lanes> device_lanes(device::DeviceQueue& main);

/// What a loader is given to make its batches on a device.
struct DeviceParts {
  std::unique_ptr<Lanes> lanes;
  std::unique_ptr<DeviceDecoder> decoder;  ///< nullptr: all images are decoded on the host
};

class DeviceFeed {
 public:
  /// `stagings`: batches that are staged at a time. `apart`: each has a place of its own on the device, for somebody
  /// else writes images there while other batches are made.
  enum class Places : bool { shared, apart };
  DeviceFeed(const config::Config& config, std::int64_t images, std::size_t stagings, Places places,
             std::unique_ptr<Lanes> lanes);

  Staging& staging(std::size_t slot) { return stagings_[slot]; }
  const StagingPlan& plan() const { return plan_; }
  /// Where the block of a staging comes to lie.
  char* place(std::size_t slot) const { return static_cast<char*>(places_[slot % places_.size()].data()); }

  /// Waits until the batch made last is made, and so its staging read: it may be filled again.
  void settle();
  /// The batch lent last will not be used by what the main queue is handed from now on.
  void hand_back();
  /// Has a batch made of what is staged in `slot`, at most one ahead of the one lent. Does not wait.
  void make(std::size_t slot, const Batch& about);
  /// Whether a batch is made ahead.
  bool ahead() const { return ahead_; }
  /// The batch made ahead: the main queue waits for it, the caller does not. Valid until handed back.
  const Batch& lend();

  /// Memory it holds for the run.
  std::int64_t pinned_bytes() const;
  std::int64_t device_bytes() const;

 private:
  StagingPlan plan_;
  config::Augment augment_;
  std::deque<Staging> stagings_;
  std::vector<device::Buffer> places_;
  device::Buffer scratch_;
  struct Out {
    device::Buffer memory;
    Batch batch;
  };
  Out out_[2];
  int next_ = 0;  // of out_
  bool ahead_ = false, lent_ = false, unsettled_ = false;
  std::unique_ptr<Lanes> lanes_;  // last: what runs on them uses all above
};

}  // namespace seer::data
