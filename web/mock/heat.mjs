// The settings of hot channels, as `crates/proto/src/heat.rs` has them by default.

const NORMAL = {
  batch_ms: 0,
  heads_seconds: 1,
  joins_per_second: 0,
  slow_mode_seconds: 0,
  slow_reader_entries: 0,
  shared_read_ms: 0,
  alert_hold_seconds: 0,
};
const warm = { ...NORMAL, batch_ms: 100, joins_per_second: 200, shared_read_ms: 100, alert_hold_seconds: 10 };
const hot = {
  ...warm,
  batch_ms: 500,
  heads_seconds: 5,
  joins_per_second: 100,
  shared_read_ms: 250,
  alert_hold_seconds: 30,
};
const blazing = {
  ...hot,
  batch_ms: 1_000,
  heads_seconds: 10,
  joins_per_second: 50,
  slow_mode_seconds: 5,
  slow_reader_entries: 5,
  alert_hold_seconds: 60,
};

export const DEFAULT_CONFIG = {
  heat: {
    costs: { entry: 1, kib: 0.05, delivery: 0.02, read: 4, join: 8 },
    capacity: {
      shares: [0.02, 0.08, 0.25],
      floor: [200, 800, 2_500],
      cap: [4_000, 16_000, 50_000],
      lag_ms: 20,
      assumed: 25_000,
    },
    pacing: { warm, hot, blazing },
  },
};

export function pacingOf(config, level) {
  return level === 'normal' ? NORMAL : config.heat.pacing[level];
}
