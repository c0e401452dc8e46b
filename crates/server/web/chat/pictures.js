// Pictures. One that comes is shown only if its first bytes say how large it is drawn, and that is not enormous; one that goes
// is drawn anew, so that nothing but what is seen goes with it: no place, no camera, no time.

const MAX_BYTES = 1_000_000
const EDGES = [1600, 1280, 960, 640]
const QUALITIES = [0.86, 0.75, 0.6]

/** A small file may claim to be a picture that no memory holds. */
const MAX_PIXELS = 50_000_000

const ascii = (view, at, text) => Array.from(text).every((char, index) => view.getUint8(at + index) === char.charCodeAt(0))
const uint24 = (view, at) => view.getUint16(at, true) | view.getUint8(at + 2) << 16

function jpegSize (view) {
  for (let at = 2; view.getUint8(at) === 0xFF;) {
    const marker = view.getUint8(at + 1)
    const isFrame = marker >= 0xC0 && marker <= 0xCF && ![0xC4, 0xC8, 0xCC].includes(marker)
    if (isFrame) return [view.getUint16(at + 7), view.getUint16(at + 5)]
    at += marker === 0xFF ? 1 : 2 + view.getUint16(at + 2)
  }
}

function webpSize (view) {
  if (ascii(view, 12, 'VP8X')) return [uint24(view, 24) + 1, uint24(view, 27) + 1]
  if (ascii(view, 12, 'VP8 ')) return [view.getUint16(26, true) & 0x3FFF, view.getUint16(28, true) & 0x3FFF]
  if (!ascii(view, 12, 'VP8L')) return undefined
  const bits = view.getUint32(21, true)
  return [(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1]
}

const sizes = {
  'image/jpeg': jpegSize,
  'image/png': (view) => [view.getUint32(16), view.getUint32(20)],
  'image/gif': (view) => [view.getUint16(6, true), view.getUint16(8, true)],
  'image/webp': webpSize
}

/** Width and height as the file itself has them, or undefined if it may not be shown. */
export async function sizeOf (blob) {
  try {
    const [width, height] = sizes[blob.type](new DataView(await blob.arrayBuffer()))
    return width > 0 && height > 0 && width * height <= MAX_PIXELS ? { width, height } : undefined
  } catch { return undefined }
}

const drawn = (image, edge) => {
  const scale = Math.min(1, edge / Math.max(image.width, image.height))
  const canvas = document.createElement('canvas')
  canvas.width = Math.max(1, Math.round(image.width * scale))
  canvas.height = Math.max(1, Math.round(image.height * scale))
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }))
  context.fillStyle = '#fff'
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.drawImage(image, 0, 0, canvas.width, canvas.height)
  return canvas
}

/** A JPEG of at most a megabyte of what this file shows. Fails if it shows nothing. */
export async function reencoded (file) {
  const image = await createImageBitmap(file)
  try {
    for (const edge of EDGES) {
      const canvas = drawn(image, edge)
      for (const quality of QUALITIES) {
        const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', quality))
        if (blob && blob.size <= MAX_BYTES) return blob
      }
    }
  } finally {
    image.close()
  }
  throw new Error('too large')
}
