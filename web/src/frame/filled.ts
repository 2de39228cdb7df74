/** Fills a meter up to a share. To be attached to the element inside of it. */
export function filled(share: number): (element: HTMLElement) => void {
  return (element) => {
    element.style.inlineSize = `${Math.min(100, share * 100)}%`;
  };
}
