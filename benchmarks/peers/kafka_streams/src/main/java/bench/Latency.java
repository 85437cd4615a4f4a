package bench;

import java.time.Instant;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyWindowStore;

/** Looks at the keys of the probes once a millisecond, in process, and says when it saw which of them. */
public final class Latency {
    public static void main(String[] keys) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        long warm = Long.parseLong(Harness.setting("EVENTS"));
        AtomicLong processed = new AtomicLong();
        Harness.candles(builder, (key, trade, candle) -> {
            if (processed.incrementAndGet() == warm) {
                Harness.mark("warm", "");
            }
            return candle.add(trade);
        });
        KafkaStreams streams = new KafkaStreams(builder.build(), Harness.properties());
        Harness.startAndWait(streams);
        ReadOnlyWindowStore<String, Candle> store =
                streams.store(StoreQueryParameters.fromNameAndType(Harness.STORE, QueryableStoreTypes.windowStore()));
        double[] newest = new double[keys.length];
        Arrays.fill(newest, 0);
        Harness.mark("ready", "");
        while (true) {
            long now = System.currentTimeMillis();
            long minute = now - now % Harness.MINUTE.toMillis();
            for (int index = 0; index < keys.length; index++) {
                Candle candle = store.fetch(keys[index], minute);
                if (candle == null) {
                    // just after the turn of a minute the newest probe may still be in the window before
                    candle = store.fetch(keys[index], minute - Harness.MINUTE.toMillis());
                }
                if (candle != null && candle.close > newest[index]) {
                    newest[index] = candle.close;
                    Instant at = Instant.now();
                    double seconds = at.getEpochSecond() + at.getNano() / 1e9;
                    Harness.mark(
                            "seen",
                            String.format(
                                    Locale.ROOT,
                                    "\"key\": \"%s\", \"number\": %d, \"at\": %.6f",
                                    keys[index], (long) candle.close, seconds));
                }
            }
            Thread.sleep(1);
        }
    }
}
