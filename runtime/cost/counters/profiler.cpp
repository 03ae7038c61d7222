#include "runtime/cost/counters/profiler.h"

namespace annulus::cost {
namespace {

/// CUPTI's parameter structures begin with their size and end in zeros.
#define ANNULUS_PARAMS(type, name) \
  type name{};                     \
  name.structSize = type##_STRUCT_SIZE
#define ANNULUS_CALL(function, ...) check_cupti(cupti().function(__VA_ARGS__), #function)

std::string chip_of(int device) {
  ANNULUS_PARAMS(CUpti_Device_GetChipName_Params, params);
  params.deviceIndex = static_cast<std::size_t>(device);
  ANNULUS_CALL(cuptiDeviceGetChipName, &params);
  return params.pChipName;
}

/// What this context may count here.
std::vector<std::uint8_t> availability_of(CUcontext context) {
  ANNULUS_PARAMS(CUpti_Profiler_GetCounterAvailability_Params, params);
  params.ctx = context;
  ANNULUS_CALL(cuptiProfilerGetCounterAvailability, &params);
  std::vector<std::uint8_t> image(params.counterAvailabilityImageSize);
  params.pCounterAvailabilityImage = image.data();
  ANNULUS_CALL(cuptiProfilerGetCounterAvailability, &params);
  return image;
}

}  // namespace

RangeProfiler::RangeProfiler(CUcontext context, int device, const std::vector<std::string>& needed,
                             const std::vector<std::string>& wanted)
    : context_(context) {
  ANNULUS_PARAMS(CUpti_Profiler_Initialize_Params, start);
  ANNULUS_CALL(cuptiProfilerInitialize, &start);
  const std::string chip = chip_of(device);
  availability_ = availability_of(context);
  std::vector<std::string> all = needed;
  all.insert(all.end(), wanted.begin(), wanted.end());
  try {
    try {
      open_host(chip, all);
    } catch (const CuptiError&) {
      open_host(chip, needed);  // this chip has not all that is wanted
    }
    configure();
    ANNULUS_PARAMS(CUpti_RangeProfiler_Enable_Params, enable);
    enable.ctx = context_;
    ANNULUS_CALL(cuptiRangeProfilerEnable, &enable);
    profiler_ = enable.pRangeProfilerObject;
    start_over();
  } catch (...) {
    close();
    throw;
  }
}

RangeProfiler::~RangeProfiler() { close(); }

void RangeProfiler::close() noexcept {
  if (profiler_ != nullptr) {
    ANNULUS_PARAMS(CUpti_RangeProfiler_Disable_Params, params);
    params.pRangeProfilerObject = profiler_;
    cupti().cuptiRangeProfilerDisable(&params);
  }
  close_host();
}

void RangeProfiler::close_host() noexcept {
  if (host_ == nullptr) return;
  ANNULUS_PARAMS(CUpti_Profiler_Host_Deinitialize_Params, params);
  params.pHostObject = host_;
  cupti().cuptiProfilerHostDeinitialize(&params);
  host_ = nullptr;
}

/// All metrics in one call: those of separate calls take passes of their own.
void RangeProfiler::open_host(const std::string& chip, const std::vector<std::string>& metrics) {
  close_host();
  ANNULUS_PARAMS(CUpti_Profiler_Host_Initialize_Params, host);
  host.profilerType = CUPTI_PROFILER_TYPE_RANGE_PROFILER;
  host.pChipName = chip.c_str();
  host.pCounterAvailabilityImage = availability_.data();
  ANNULUS_CALL(cuptiProfilerHostInitialize, &host);
  host_ = host.pHostObject;
  metrics_ = metrics;
  std::vector<const char*> all = names();
  ANNULUS_PARAMS(CUpti_Profiler_Host_ConfigAddMetrics_Params, add);
  add.pHostObject = host_;
  add.ppMetricNames = all.data();
  add.numMetrics = all.size();
  const std::string call = "cuptiProfilerHostConfigAddMetrics of " + metrics.front();
  check_cupti(cupti().cuptiProfilerHostConfigAddMetrics(&add), call.c_str());
}

void RangeProfiler::configure() {
  ANNULUS_PARAMS(CUpti_Profiler_Host_GetConfigImageSize_Params, size);
  size.pHostObject = host_;
  ANNULUS_CALL(cuptiProfilerHostGetConfigImageSize, &size);
  config_.resize(size.configImageSize);
  ANNULUS_PARAMS(CUpti_Profiler_Host_GetConfigImage_Params, image);
  image.pHostObject = host_;
  image.configImageSize = config_.size();
  image.pConfigImage = config_.data();
  ANNULUS_CALL(cuptiProfilerHostGetConfigImage, &image);
  ANNULUS_PARAMS(CUpti_Profiler_Host_GetNumOfPasses_Params, passes);
  passes.configImageSize = config_.size();
  passes.pConfigImage = config_.data();
  ANNULUS_CALL(cuptiProfilerHostGetNumOfPasses, &passes);
  passes_ = static_cast<int>(passes.numOfPasses);
}

std::vector<const char*> RangeProfiler::names() const {
  std::vector<const char*> names;
  for (const std::string& metric : metrics_) names.push_back(metric.c_str());
  return names;
}

/// One range, all passes, an empty image.
void RangeProfiler::start_over() {
  std::vector<const char*> metrics = names();
  ANNULUS_PARAMS(CUpti_RangeProfiler_GetCounterDataSize_Params, size);
  size.pRangeProfilerObject = profiler_;
  size.pMetricNames = metrics.data();
  size.numMetrics = metrics.size();
  size.maxNumOfRanges = 1;
  size.maxNumRangeTreeNodes = 1;
  ANNULUS_CALL(cuptiRangeProfilerGetCounterDataSize, &size);
  data_.assign(size.counterDataSize, 0);
  ANNULUS_PARAMS(CUpti_RangeProfiler_CounterDataImage_Initialize_Params, image);
  image.pRangeProfilerObject = profiler_;
  image.counterDataSize = data_.size();
  image.pCounterData = data_.data();
  ANNULUS_CALL(cuptiRangeProfilerCounterDataImageInitialize, &image);
  ANNULUS_PARAMS(CUpti_RangeProfiler_SetConfig_Params, set);
  set.pRangeProfilerObject = profiler_;
  set.configSize = config_.size();
  set.pConfig = config_.data();
  set.counterDataImageSize = data_.size();
  set.pCounterDataImage = data_.data();
  set.range = CUPTI_UserRange;
  set.replayMode = CUPTI_UserReplay;
  set.maxRangesPerPass = 1;
  set.numNestingLevels = 1;
  set.minNestingLevel = 1;
  set.passIndex = 0;
  set.targetNestingLevel = 1;
  ANNULUS_CALL(cuptiRangeProfilerSetConfig, &set);
}

void RangeProfiler::begin(bool first_pass) {
  if (first_pass) start_over();
  ANNULUS_PARAMS(CUpti_RangeProfiler_Start_Params, start);
  start.pRangeProfilerObject = profiler_;
  ANNULUS_CALL(cuptiRangeProfilerStart, &start);
  ANNULUS_PARAMS(CUpti_RangeProfiler_PushRange_Params, push);
  push.pRangeProfilerObject = profiler_;
  push.pRangeName = "annulus";
  ANNULUS_CALL(cuptiRangeProfilerPushRange, &push);
}

bool RangeProfiler::end() {
  ANNULUS_PARAMS(CUpti_RangeProfiler_PopRange_Params, pop);
  pop.pRangeProfilerObject = profiler_;
  ANNULUS_CALL(cuptiRangeProfilerPopRange, &pop);
  ANNULUS_PARAMS(CUpti_RangeProfiler_Stop_Params, stop);
  stop.pRangeProfilerObject = profiler_;
  ANNULUS_CALL(cuptiRangeProfilerStop, &stop);
  if (stop.isAllPassSubmitted == 0) return false;
  ANNULUS_PARAMS(CUpti_RangeProfiler_DecodeData_Params, decode);
  decode.pRangeProfilerObject = profiler_;
  ANNULUS_CALL(cuptiRangeProfilerDecodeData, &decode);
  if (decode.numOfRangeDropped > 0) throw CuptiError{"the range's counters were dropped"};
  return true;
}

std::vector<double> RangeProfiler::values() const {
  std::vector<const char*> metrics = names();
  std::vector<double> values(metrics.size(), -1.0);
  ANNULUS_PARAMS(CUpti_Profiler_Host_EvaluateToGpuValues_Params, params);
  params.pHostObject = host_;
  params.pCounterDataImage = data_.data();
  params.counterDataImageSize = data_.size();
  params.ppMetricNames = metrics.data();
  params.numMetrics = metrics.size();
  params.rangeIndex = 0;
  params.pMetricValues = values.data();
  ANNULUS_CALL(cuptiProfilerHostEvaluateToGpuValues, &params);
  return values;
}

}  // namespace annulus::cost
