import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

const MOCK = 'http://127.0.0.1:8788';

export default defineConfig({
  base: '/operator/',
  plugins: [svelte()],
  build: {
    target: 'es2022',
    cssTarget: ['chrome125', 'firefox128', 'safari17.5'],
    assetsInlineLimit: 0,
    // Browsers that lack modulepreload still load the modules, only later.
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/v1': { target: MOCK, ws: true } } },
});
