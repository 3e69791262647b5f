// SPDX-License-Identifier: Apache-2.0
// Turns staged images into batches on a device. Two batches lie there: while the training computes on one, the next is
// made on a second queue. The queues wait for each other on the device. The training's thread makes all calls, except
// staging(), place() and calls on a Staging before make(), which come from the loader's threads.
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

/// The two queues as the feed sees them: the side queue makes batches, the training computes on the main queue. Each
/// runs its work in order. Only the calls here order work of one queue relative to the other.
class Lanes {
 public:
  virtual ~Lanes() = default;
  virtual device::Space space() const = 0;
  virtual void copy(const void* pinned, void* there, std::size_t bytes) = 0;
  virtual void make(const kernels::CropBatch& batch) = 0;
  /// Work submitted to the side (main) queue from now on waits for work submitted to the other queue before.
  virtual void side_follows_main() = 0;
  virtual void main_follows_side() = 0;
  /// Waits until the side queue has finished all its work.
  virtual void wait_for_side() = 0;
};

/// Makes a side queue for the training's queue `main`, which must outlive the result.
std::unique_ptr<Lanes> device_lanes(device::DeviceQueue& main);

/// What a loader needs to make its batches on a device.
struct DeviceParts {
  std::unique_ptr<Lanes> lanes;
  std::unique_ptr<DeviceDecoder> decoder;  ///< nullptr: all images are decoded on the host
};

class DeviceFeed {
 public:
  /// `stagings`: number of batches staged at a time. `apart`: each has its own place on the device, since the device
  /// decoder writes images there while other batches are made.
  enum class Places : bool { shared, apart };
  DeviceFeed(const config::Config& config, std::int64_t images, std::size_t stagings, Places places,
             std::unique_ptr<Lanes> lanes);

  Staging& staging(std::size_t slot) { return stagings_[slot]; }
  const StagingPlan& plan() const { return plan_; }
  /// Where the block of a staging lies on the device.
  char* place(std::size_t slot) const { return static_cast<char*>(places_[slot % places_.size()].data()); }

  /// Waits until the last batch submitted by make() is complete. Its staging has then been read and may be refilled.
  void settle();
  /// Promises that work submitted to the main queue from now on does not use the batch lent last.
  void hand_back();
  /// Submits the work that makes a batch from staging `slot`, at most one ahead of the one lent. Does not wait.
  void make(std::size_t slot, const Batch& about);
  /// Whether a batch has been made ahead.
  bool ahead() const { return ahead_; }
  /// Returns the batch made ahead. The main queue waits for it, the caller does not. Valid until handed back.
  const Batch& lend();

  /// Memory held for the run, in bytes.
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
  int next_ = 0;  // index into out_
  bool ahead_ = false, lent_ = false, unsettled_ = false;
  std::unique_ptr<Lanes> lanes_;  // last: their work uses all members above
};

}  // namespace seer::data
