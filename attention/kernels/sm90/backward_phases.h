#pragma once

// Where the time of a backward step goes: phases, named by what has been reached at their ends.
namespace annulus::attn::sm90 {

enum class Phase {
  item,      ///< K and V of an item are there, the last item's gradients are stored
  scores,    ///< S is there
  slopes,    ///< P is computed, and dP there
  exchange,  ///< dS is stored
  meeting,   ///< by both warpgroups
  dq,        ///< dQ is there
  added,     ///< and on its way to memory
  done,      ///< dK is there, or started
};
inline constexpr int kPhases = 8;
inline constexpr const char* kPhaseNames[kPhases] = {"item",    "scores", "slopes", "exchange",
                                                     "meeting", "dq",     "added",  "done"};

}  // namespace annulus::attn::sm90
