import { mount } from 'svelte';
import App from './App.svelte';
import { speech, theme } from './state.svelte';
import './style/tokens.css';
import './style/base.css';
import './style/frame.css';
import './style/dialog.css';
import './style/sign-in.css';
import './style/marks.css';
import './style/table.css';
import './style/cards.css';
import './style/guarantees.css';
import './style/channel.css';
import './style/chart.css';
import './style/config.css';
import './style/alerts.css';

theme.start();
const target = document.getElementById('app');
if (target !== null) {
  // Words first: a page that changes its language before the eyes is worse than one that is 20 ms later.
  void speech.start().then(() => mount(App, { target }));
}
