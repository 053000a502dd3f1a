// Builds metrics for prometheus-cpp.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

namespace refit {

// Not thread-safe.
class MetricFamilies {
 public:
  using Labels = std::vector<prometheus::ClientMetric::Label>;

  // One metric with a sample for each combination of labels. Its MetricFamilies must outlive it.
  class Family {
   public:
    void Add(double value, Labels labels = {}) const {
      prometheus::MetricFamily& family = all_->families_[index_];
      prometheus::ClientMetric& metric = family.metric.emplace_back();
      metric.label = std::move(labels);
      (family.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    }

   private:
    friend class MetricFamilies;
    Family(MetricFamilies* all, size_t index) : all_(all), index_(index) {}
    MetricFamilies* all_;
    size_t index_;
  };

  // A family without samples is served too, so that users can see which metrics exist.
  Family Gauge(std::string name, std::string help) {
    return Describe({std::move(name), std::move(help), prometheus::MetricType::Gauge, {}});
  }
  Family Counter(std::string name, std::string help) {
    return Describe({std::move(name), std::move(help), prometheus::MetricType::Counter, {}});
  }

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  Family Describe(prometheus::MetricFamily family) {
    families_.push_back(std::move(family));
    return {this, families_.size() - 1};
  }

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace refit
