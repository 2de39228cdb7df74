// Names of channels that the board does not show, and channels that were never hot.

const CHANNELS = new Map([
  ['269737367961600105', { kind: 'group', name: 'Stage crew' }],
  ['269737367961600108', { kind: 'direct' }],
  ['269737367961600109', { kind: 'group', name: '야외 공연 준비팀' }],
]);

export function nameOf(id) {
  return CHANNELS.get(id);
}
