#pragma once

// Where the time of a forward block goes: phases, named by what has been reached at their ends.
namespace annulus::attn::sm90 {

enum class ForwardPhase {
  begun,    ///< the first item is known
  queries,  ///< of an item are there
  keys,     ///< the first of an item are
  started,  ///< last P V of the item before, first Q K^T of this
  values,   ///< the last P V of the last item is done
  output,   ///< of the item before is on its way
  scores,   ///< the first of an item are there
  entered,  ///< and are probabilities
  step,     ///< one more step is done
  ended,    ///< nothing is left
};
inline constexpr int kForwardPhases = 10;
inline constexpr const char* kForwardPhaseNames[kForwardPhases] = {
    "begun",  "queries", "keys",    "started", "values",
    "output", "scores",  "entered", "step",    "ended"};

}  // namespace annulus::attn::sm90
