// Rates of users and addresses: those in the configuration file of the node, and those that an operator has set.

const MOST = 1_000_000;

export const FILE_LIMITS = {
  user_sends: 40,
  user_write_kib: 512,
  user_requests: 50,
  address_requests: 20,
  address_logins: 0,
};

export const SET_LIMITS = { address_logins: 5 };

/** The first rate that is unknown or out of bounds. */
export function badLimit(limits = {}) {
  const isGood = ([name, value]) =>
    name in FILE_LIMITS && Number.isInteger(value) && value >= 0 && value <= MOST;
  return Object.entries(limits).find((each) => !isGood(each))?.[0];
}
