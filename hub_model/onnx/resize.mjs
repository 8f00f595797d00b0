// Resize a picture for the network as the Python doors do. transformers.js resizes in ways of its own, without smoothing what it
// shrinks, which moves a probability by up to 0.3; a picture that has the network's size already is left as it is.
//
//     import { pipeline, RawImage } from "@huggingface/transformers";
//     import { resize } from "./onnx/resize.mjs";
//
//     const classify = await pipeline("image-classification", ID, { dtype: "fp32" });
//     const answer = await classify(resize(await RawImage.read("cell.jpg")));

const BITS = 22; // of a weight, as in Pillow's Resample.c, whose bilinear filter this is

/**
 * Resize a picture with Pillow's bilinear filter, which covers the pixels that shrink into one.
 *
 * @param {RawImage} image of any size, with 1, 3 or 4 channels of 8 bits; grey is repeated and transparency dropped.
 * @param {number} width px, of the network.
 * @param {number} height px.
 * @returns {RawImage} RGB, width x height px.
 */
export function resize(image, width = 224, height = 224) {
    const rgb = image.rgb();
    const wide = along(rgb.data, rgb.width, width, rgb.height, 3, rgb.width * 3);
    const data = along(wide, rgb.height, height, width, width * 3, 3);
    return new rgb.constructor(data, width, height, 3);
}

/** Resample lines of `from` pixels to `to` pixels: pixels lie `step` bytes apart, `lines` lines `stride` bytes. */
function along(data, from, to, lines, step, stride) {
    const across = step === 3; // along rows
    const result = new Uint8ClampedArray(to * lines * 3);
    const outStep = across ? 3 : lines * 3;
    const outStride = across ? to * 3 : 3;
    weightsOf(from, to).forEach(({ first, weights }, place) => {
        for (let line = 0; line < lines; line++) {
            for (let channel = 0; channel < 3; channel++) {
                let sum = 2 ** (BITS - 1);
                for (let k = 0; k < weights.length; k++) {
                    sum += weights[k] * data[(first + k) * step + line * stride + channel];
                }
                result[place * outStep + line * outStride + channel] = Math.floor(sum / 2 ** BITS);
            }
        }
    });
    return result;
}

/** For each pixel of the result, the first pixel that it covers and the weights of this and the next ones. */
function weightsOf(from, to) {
    const scale = from / to;
    const support = Math.max(scale, 1);
    return Array.from({ length: to }, (_, place) => {
        const centre = (place + 0.5) * scale;
        const first = Math.max(0, Math.trunc(centre - support + 0.5));
        const last = Math.min(from, Math.trunc(centre + support + 0.5));
        const raw = Array.from({ length: last - first }, (_, k) =>
            Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / support)),
        );
        const total = raw.reduce((sum, weight) => sum + weight, 0);
        return { first, weights: raw.map((weight) => Math.round((weight / total) * 2 ** BITS)) };
    });
}
