/** The time that ages on the page are computed from. It stands still while the page is hidden. */
export class Ticker {
  now = $state(Date.now());

  /** Returns what stops it. */
  start(): () => void {
    const timer = setInterval(() => {
      if (!document.hidden) this.now = Date.now();
    }, 500);
    const wake = () => (this.now = Date.now());
    document.addEventListener('visibilitychange', wake);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', wake);
    };
  }
}
