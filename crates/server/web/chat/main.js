// The chat page begins here.

import { Page } from './page.js'

new Page(/** @type {HTMLElement} */ (document.getElementById('chat'))).begin()
