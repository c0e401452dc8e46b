// The chat page begins here.

import { Page } from './page.js'

new Page(document.getElementById('chat')).begin()
