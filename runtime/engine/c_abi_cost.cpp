// The C interface to the accountings and the roofline.
#include "runtime/engine/c_abi.h"

#include <vector>

using annulus::InvalidArgument;
using namespace annulus::c_abi;

namespace {

annulus::Stage stage_of(int32_t value) { return enumerated<annulus::Stage>(value, 3, "stage"); }
annulus::CostMode mode_of(int32_t value) { return enumerated<annulus::CostMode>(value, 2, "mode"); }

std::string_view text_or_nothing(const char* text) { return text == nullptr ? "" : text; }

annulus::CostRequest request_of(const annulus_cost_request* given) {
  need(given, "request");
  const annulus_cost_request r = taken(given, annulus_cost_request_init, "cost request");
  annulus::CostRequest request;
  request.stage = stage_of(r.stage);
  request.mode = mode_of(r.mode);
  request.batch = r.batch;
  request.heads = r.heads;
  request.heads_kv = r.heads_kv == -1 ? r.heads : r.heads_kv;
  request.head_dim = r.head_dim;
  request.head_dim_v = r.head_dim_v == -1 ? r.head_dim : r.head_dim_v;
  request.layers = r.layers;
  request.seq = r.seq;
  request.seq_kv = r.seq_kv;
  request.prompt = r.prompt;
  request.generated = r.generated;
  request.beam = r.beam;
  request.chunks = annulus::parse_chunks(text_or_nothing(r.chunks));
  request.decodes = annulus::parse_decode_entries(text_or_nothing(r.decode_kv));
  request.sp = r.sp;
  request.tp = r.tp;
  request.ep = r.ep;
  request.softmax_factor = r.softmax_factor;
  request.peak_tflops = r.peak_tflops;
  if (r.masked_pairs_by_rank != nullptr && r.sp > 0) {
    request.masked_pairs_by_rank.assign(r.masked_pairs_by_rank, r.masked_pairs_by_rank + r.sp);
  }
  return request;
}

annulus::SystemRates rates_of(const annulus_latency_request& r) {
  annulus::SystemRates rates;
  rates.tflops = r.tflops;
  rates.memory_gib = r.memory_gib;
  rates.memory_gib_s = r.memory_gib_s;
  rates.link_gib_s = r.link_gib_s;
  rates.link_latency_us = r.link_latency_us;
  rates.onchip_gib_s = r.onchip_gib_s;
  rates.host_gib_s = r.host_gib_s;
  rates.efficiency = r.efficiency;
  return rates;
}

annulus::LatencyRequest request_of(const annulus_latency_request* given) {
  need(given, "request");
  const annulus_latency_request r = taken(given, annulus_latency_request_init, "latency request");
  annulus::LatencyRequest request;
  request.stage = stage_of(r.stage);
  request.mode = mode_of(r.mode);
  request.precision = enumerated<annulus::Precision>(r.precision, 8, "precision");
  request.model = {.hidden = r.hidden,
                   .heads = r.heads,
                   .heads_kv = r.heads_kv == -1 ? r.heads : r.heads_kv,
                   .head_dim = r.head_dim,
                   .ffn = r.ffn,
                   .ffn_inputs = r.ffn_inputs,
                   .vocab = r.vocab,
                   .layers = r.layers};
  request.system = rates_of(r);
  request.batch = r.batch;
  request.seq = r.seq;
  request.prompt = r.prompt;
  request.generated = r.generated;
  request.beam = r.beam;
  request.chunks = annulus::parse_chunks(text_or_nothing(r.chunks));
  request.decodes = annulus::parse_decode_entries(text_or_nothing(r.decode_kv));
  request.tp = r.tp;
  request.sp = r.sp;
  request.pp = r.pp;
  request.softmax_factor = r.softmax_factor;
  request.offload = r.offload != 0;
  return request;
}

std::vector<annulus::ModeComparison> compared(const annulus_latency_request* const* stages,
                                              int64_t count) {
  if (count < 0) throw InvalidArgument("count is negative");
  std::vector<annulus::ModeComparison> list;
  for (int64_t i = 0; i < count; ++i) {
    list.push_back(annulus::compare_modes(request_of((&need(stages, "stages"))[i])));
  }
  return list;
}

}  // namespace

extern "C" {

annulus_status annulus_price_json(const annulus_cost_request* request, char** text,
                                  annulus_error* error) {
  return told(text, error, [&] { return annulus::to_json(annulus::price(request_of(request))); });
}

annulus_status annulus_price_text(const annulus_cost_request* request, char** text,
                                  annulus_error* error) {
  return told(text, error, [&] { return annulus::to_text(annulus::price(request_of(request))); });
}

annulus_status annulus_latency_estimate(const annulus_latency_request* request,
                                        annulus_latency* latency, annulus_error* error) {
  return guarded(error, [&] {
    const annulus::LatencyReport r = annulus::estimate_latency(request_of(request));
    give(annulus_latency{.size = 0,
                         .fits = r.fits,
                         .offloaded = r.offloaded,
                         .macs = r.macs,
                         .attention_macs = r.attention_macs,
                         .latency_s = r.latency_s,
                         .attention_s = r.attention_s,
                         .linear_s = r.linear_s,
                         .comm_s = r.comm_s,
                         .weight_bytes = r.weight_bytes,
                         .cache_bytes = r.cache_bytes,
                         .throughput_per_s = r.throughput_per_s},
         latency, "latency");
  });
}

annulus_status annulus_latency_compare_json(const annulus_latency_request* const* stages,
                                            int64_t count, char** text, annulus_error* error) {
  return told(text, error, [&] { return annulus::to_json(compared(stages, count)); });
}

annulus_status annulus_latency_compare_text(const annulus_latency_request* const* stages,
                                            int64_t count, char** text, annulus_error* error) {
  return told(text, error, [&] { return annulus::to_text(compared(stages, count)); });
}

}  // extern "C"
